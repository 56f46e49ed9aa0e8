"""Registry filters as text: Go's syntax, and commas that belong to a pattern."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.config import Arguments, ConfigError, NodeSettings, all_settings, build, split_arguments
from speil.mirror.filters import compile_filter, filters, split_filters
from speil.setting import SettingError


def registry(*argv: str, **environ: str) -> list[str]:
    arguments: Arguments = split_arguments("registry", argv, all_settings(NodeSettings))
    settings = build(NodeSettings, arguments, {"BOOTSTRAP_KIND": "static", **environ})
    return [pattern.pattern for pattern in settings.mirror.registry_filters]


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("a,b", ["a", "b"]),
        ("a", ["a"]),
        ("", []),
        (",a,, b,", ["a", "b"]),
        (r"^docker\.io/a{1,2},^ghcr\.io/", [r"^docker\.io/a{1,2}", r"^ghcr\.io/"]),
        ("(a,b)|c,d", ["(a,b)|c", "d"]),
        ("[,]x,[^],]y,[],]z", ["[,]x", "[^],]y", "[],]z"]),
        (r"a\,b,c", [r"a\,b", "c"]),
        ("[[:digit:]]{2,},x", ["[[:digit:]]{2,}", "x"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b",c', ['a"b', "c"]),
        ('"a', ['"a']),
        ("a\nb{1,2}\n\nc", ["a", "b{1,2}", "c"]),
        (r"\(,a", [r"\(", "a"]),
        (r"[[:digit:],]x,y", ["[[:digit:],]x", "y"]),
        (r"[[:^alpha:],],y", ["[[:^alpha:],]", "y"]),
        ("[a[],y", ["[a[]", "y"]),
        ("[^a[,],y", ["[^a[,]", "y"]),
        (r"[\],a],y", [r"[\],a]", "y"]),
        (r"\Qa,(b\E,y", [r"\Qa,(b\E", "y"]),
        (r"\[a,b", [r"\[a", "b"]),
    ],
)
def test_a_variable_is_split_between_patterns_not_within(text: str, patterns: list[str]) -> None:
    assert split_filters(text) == patterns


@given(st.text(alphabet=',(){}[]\\"\na^1', max_size=12))
def test_any_text_is_split_without_failing(text: str) -> None:
    assert all(part for part in split_filters(text))


def test_on_the_command_line_each_value_is_one_pattern() -> None:
    assert registry("--registry-filters=a,b") == ["a,b"]
    assert registry("--registry-filters=a{1,2}", "--registry-filters", "b", "c,d") == ["a{1,2}", "b", "c,d"]
    assert registry("--registry-filters=") == []


def test_in_the_environment_a_pattern_with_a_comma_is_one() -> None:
    assert registry(REGISTRY_FILTERS=r"^reg[.]test/a{1,2}/") == [r"^reg[.]test/a{1,2}/"]
    assert registry(REGISTRY_FILTERS=r"^a{1,2}/,^b/") == ["^a{1,2}/", "^b/"]


def test_what_is_shown_is_read_again() -> None:
    shown = filters.show((compile_filter("a,b"), compile_filter("c{1,2}"), compile_filter('d"')))
    assert [pattern.pattern for pattern in filters.parse(shown)] == ["a,b", "c{1,2}", 'd"']


@pytest.mark.parametrize(
    ("pattern", "matches", "passes"),
    [
        (r"secret[[:digit:]]+/", "reg.test/secret42/app", "reg.test/secretd/app"),
        (r"^reg\.test/\pL+/\z", "reg.test/abc/", "reg.test/123/"),
        (r"(?i)PRIVATE", "reg.test/private/app", "reg.test/public"),
        (r"(?U)a+$", "reg.test/aaa", "reg.test/b"),
        (r"\Qa.b\E", "a.b", "axb"),
        (r"^[[:^alpha:]]", "1", "a"),
    ],
)
def test_filters_are_read_as_go_reads_them(pattern: str, matches: str, passes: str) -> None:
    compiled = compile_filter(pattern)
    assert compiled.search(matches)
    assert not compiled.search(passes)


@pytest.mark.parametrize("pattern", ["[", r"(?=a)", r"(?<!a)b", r"(a)\1", "a++", r"\Z", "a{2,1}", "(?P<x"])
def test_what_go_refuses_is_refused_with_what_is_wrong(pattern: str) -> None:
    with pytest.raises(SettingError, match="Go's syntax"):
        compile_filter(pattern)
    with pytest.raises(ConfigError, match="--registry-filters: "):
        registry(f"--registry-filters={pattern}")


def test_all_registries_have_three_names_and_an_empty_item_is_passed_over() -> None:
    def mirrored(*values: str) -> frozenset[str] | None:
        argv = [f"--mirrored-registries={value}" for value in values]
        arguments = split_arguments("registry", argv, all_settings(NodeSettings))
        return build(NodeSettings, arguments, {"BOOTSTRAP_KIND": "static"}).mirror.mirrored_hosts

    for values in ([], [""], ["_default"], ["*"], ["https://docker.io,_default"], ["https://docker.io", "*"]):
        assert mirrored(*values) is None, values
    for values in (["https://docker.io,"], ["https://docker.io", ""]):
        assert mirrored(*values) == frozenset(("docker.io",))


def test_re2_is_loaded_where_a_filter_is_set_and_only_there() -> None:
    script = "import sys, speil.daemon; print('re2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
