"""hosts.toml: rendering, merging with existing text, and the problems that doctor reports."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from speil.hosts_toml.document import HostsTomlError, Mirrors, check_target, directory_of, parse, render
from speil.hosts_toml.judge import judge

TARGETS = ("http://10.0.0.1:30020", "http://10.0.0.1:30021")

# byte for byte what Spegel 0.7.4 writes
SPEGEL = """server = 'https://registry-1.docker.io'

[host.'http://10.0.0.1:30020']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'

[host.'http://10.0.0.1:30021']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'"""


def test_the_plain_case_is_spegels_text() -> None:
    assert render("https://docker.io", Mirrors(TARGETS)) == SPEGEL
    assert directory_of("https://docker.io") == "docker.io"
    assert directory_of("http://reg.test:5000") == "reg.test:5000"


def test_all_registries_have_no_server_and_a_directory_of_their_own() -> None:
    text = render("", Mirrors(TARGETS[:1], resolve_tags=False))
    assert text == "[host.'http://10.0.0.1:30020']\ncapabilities = ['pull']\ndial_timeout = '200ms'"
    assert directory_of("") == "_default"


def test_credentials_are_sent_with_each_request() -> None:
    document = parse(render("https://ghcr.io", Mirrors(TARGETS[:1], headers=(("Authorization", "Basic dTpw"),))))
    assert document["host"][TARGETS[0]]["header"] == {"Authorization": "Basic dTpw"}


EXISTING = """server = "https://own.test"
ca = "/etc/ca.pem"

[host."https://cache.test"]
  capabilities = ["pull"]
  skip_verify = true
  [host."https://cache.test".header]
    x-token = ["a", "b"]

[host."http://10.0.0.1:30020"]
  capabilities = ["pull"]
"""


def test_existing_hosts_stay_behind_ours_and_the_operators_server_stays() -> None:
    document = parse(render("https://ghcr.io", Mirrors(TARGETS), EXISTING))
    assert list(document["host"]) == [*TARGETS, "https://cache.test"]
    assert document["server"] == "https://own.test"
    assert document["ca"] == "/etc/ca.pem"
    assert document["host"]["https://cache.test"] == parse(EXISTING)["host"]["https://cache.test"]
    assert document["host"][TARGETS[0]]["capabilities"] == ["pull", "resolve"], "ours is ours"


VALUES = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=3),
        max_size=3,
    )
)
def test_whatever_was_there_survives(hosts: dict[str, dict[str, object]]) -> None:
    text = render("https://ghcr.io", Mirrors(TARGETS), tomli_w.dumps({"host": hosts}))
    found = tomllib.loads(text)["host"]
    assert {url: found[url] for url in hosts if url not in TARGETS} == {
        u: t for u, t in hosts.items() if u not in TARGETS
    }
    assert not judge(text).problems or hosts


def test_what_is_written_is_judged_well() -> None:
    for url in ("", "https://docker.io"):
        judgement = judge(render(url, Mirrors(TARGETS, headers=(("Authorization", "Basic x"),))))
        assert (judgement.hosts, judgement.problems) == (TARGETS, ())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("server = ", "not TOML"),
        ('server = "https://x"', "no [host] table"),
        ('[host."http://x"]\ncapabilities = ["pull", "referers"]', "unknown capability referers"),
        ('[host."http://x"]\ndial_timeout = "200"', "dial_timeout '200' is not a duration"),
        ('[host."http://x"]\nskip_verify = true', "skip_verify on an http host"),
        ('[host."x:5000"]\ncapabilities = ["pull"]', "no scheme"),
    ],
)
def test_what_containerd_drops_without_a_word_is_named(text: str, problem: str) -> None:
    (found,) = judge(text).problems
    assert problem in found


@given(st.text(max_size=100))
def test_no_text_breaks_the_judge(text: str) -> None:
    judge(text)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:5000", "ftp://x", "http://", "http://x?y=1", "http://x#y", "http://a b"]
)
def test_what_is_no_target_is_refused(url: str) -> None:
    with pytest.raises(HostsTomlError, match="http://127"):
        check_target(url)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://fd00::7:30020", "http://[fd00::7]:30020"),
        ("http://fd00::7:5000", "http://[fd00::7]:5000"),
        ("http://2001:db8:0:1:1:1:1:1:30020/", "http://[2001:db8:0:1:1:1:1:1]:30020"),
        ("http://[fd00::7]:30020", "http://[fd00::7]:30020"),
        ("http://10.0.0.7:30020", "http://10.0.0.7:30020"),
    ],
)
def test_an_ipv6_address_in_front_of_a_port_gets_its_brackets(url: str, target: str) -> None:
    assert check_target(url) == target
