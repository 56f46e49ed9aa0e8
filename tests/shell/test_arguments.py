"""Flags in all their spellings, and values that stand without a flag."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from speil.config import ConfigError, HelpRequested, all_settings, build, split_arguments
from speil.setting import boolean, each, one_of, setting, text


@dataclass(frozen=True, slots=True)
class Settings:
    """Of each kind one."""

    node: str = setting(text, "", required=True, positional=True, help="A node.")
    other: str = setting(text, "", positional=True, help="Another one.")
    regions: tuple[str, ...] = setting(each("regions", str), (), also=("--region",), help="Regions.")
    output: str = setting(one_of("table", "json"), "table", also=("-o",), help="How.")
    context: str = setting(text, "", also=("--where", "-c"), help="Where.")
    quiet: bool = setting(boolean, False, also=("-q",), help="No progress.")


@dataclass(frozen=True, slots=True)
class Lists:
    """No value without a flag, so a list may have several words."""

    regions: tuple[str, ...] = setting(each("regions", str), (), help="Regions.")
    output: str = setting(one_of("table", "json"), "table", also=("-o",), help="How.")


def parse(*argv: str) -> Settings:
    arguments = split_arguments("", argv, all_settings(Settings))
    assert not arguments.positional
    return build(Settings, arguments, {})


@pytest.mark.parametrize(
    "argv",
    [
        ("n1", "-o", "json"), ("n1", "-ojson"), ("n1", "-o=json"), ("-o", "json", "n1"), ("n1", "--output=json"),
        ("--node", "n1", "-ojson"), ("-ojson", "--", "n1"),
    ],
)  # fmt: skip
def test_short_flags_as_kubectl_takes_them(argv: tuple[str, ...]) -> None:
    assert parse(*argv) == Settings("n1", output="json")


@pytest.mark.parametrize(
    "argv", [("n1", "--context", "x"), ("n1", "--where=x"), ("-c", "x", "n1"), ("-cx", "n1"), ("n1", "-c=x")]
)
def test_a_setting_has_several_spellings(argv: tuple[str, ...]) -> None:
    assert parse(*argv) == Settings("n1", context="x")


@pytest.mark.parametrize("argv", [("--region", "a", "n1"), ("n1", "--regions=a"), ("--region=a", "n1")])
def test_a_list_leaves_the_value_without_a_flag_alone(argv: tuple[str, ...]) -> None:
    assert parse(*argv) == Settings("n1", regions=("a",))


def test_a_list_may_have_several_words_where_nothing_else_can_follow() -> None:
    arguments = split_arguments("", ["--regions", "a", "b", "-ojson"], all_settings(Lists))
    assert build(Lists, arguments, {}) == Lists(("a", "b"), "json")


@pytest.mark.parametrize("argv", [("-q", "n1"), ("n1", "--quiet"), ("-q=true", "n1"), ("--quiet=1", "n1")])
def test_a_boolean_takes_no_value_without_a_flag(argv: tuple[str, ...]) -> None:
    assert parse(*argv) == Settings("n1", quiet=True)


def test_values_go_to_their_settings_in_order() -> None:
    assert parse("n1", "n2") == Settings("n1", "n2")
    assert parse("--", "-n1", "--help") == Settings("-n1", "--help")
    assert parse("--other=n2", "n1") == Settings("n1", "n2")
    assert split_arguments("", ["a", "b", "c"], all_settings(Settings)).positional == ["c"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "NODE is required: A node."),
        (("n1", "--node=n2"), "NODE is given twice: as 'n1' and by --node"),
        (("n1", "-x"), "unknown flag -x"),
        (("n1", "-o"), "--output needs a value"),
        (("n1", "-o", "-q"), "--output needs a value"),
        (("n1", "-oxml"), "'xml' is not known: use one of table, json"),
        (("n1", "--wehre=x"), "did you mean --where?"),
    ],
)
def test_a_mistake_is_named(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse(*argv)


def test_help_is_help_everywhere_but_behind_two_dashes() -> None:
    with pytest.raises(HelpRequested):
        parse("n1", "-h")
