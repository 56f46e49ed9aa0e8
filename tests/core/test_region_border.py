"""Who belongs to a region, its secret and its tokens: properties."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.region.policy import CONTRADICTION, Policy, label_said, protocols_of, region_said, zone_said
from speil.region.secret import CHARS_MIN, SECRETS_MAX, SecretError, parse
from speil.region.token import (
    NONCES_MAX,
    TOKEN_SECONDS_MAX,
    Request,
    RequestTokens,
    check_node,
    is_node_name,
    sign_node,
    sign_request,
)

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=CHARS_MIN, max_size=64)
REQUESTS = st.builds(Request, st.sampled_from(["GET", "HEAD"]), TEXT, TEXT)
FORGED = st.text(max_size=80) | st.from_regex(r"\d{1,12}\.[0-9a-f]{16}\.[0-9a-f]{64}", fullmatch=True)
NONCE = "0123456789abcdef"


@given(LABELS, LABELS | st.just(""), LABELS)
def test_a_region_admits_itself_and_nobody_else(region: str, zone: str, other: str) -> None:
    policy = Policy(region, unsaid=False)
    told = frozenset((*protocols_of(region, zone), "/ipfs/id/1.0.0"))
    assert policy.admits(region_said(told))
    assert zone_said(told) == zone
    assert policy.admits(region_said(protocols_of(other, zone))) == (other == region)
    assert not policy.admits(region_said(["/spegel/kad/1.0.0"])), "who says nothing is nobody's"
    assert Policy(region, unsaid=True).admits("")
    assert Policy().admits("")
    assert not Policy().admits(region), "a mesh without regions is not part of one"


VALUES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?", fullmatch=True)


@given(LABELS, VALUES | st.just(""), VALUES | st.just(""))
def test_labels_that_both_sides_know_must_be_the_same(region: str, own: str, other: str) -> None:
    told = frozenset(protocols_of(region, "z", other))
    assert label_said(told) == other
    assert region_said(told) == region
    assert Policy(region, False, label=own).shares(label_said(told)) == (own == other or "" in (own, other))


@pytest.mark.parametrize("said", [["a", "b"], ["a b"], [""], ["x" * 64]])
def test_a_peer_whose_label_is_nonsense_shares_none(said: list[str]) -> None:
    told = [f"/speil/topology-region/{label}" for label in said]
    assert label_said(told) == CONTRADICTION
    assert not Policy("a", False, label="a").shares(label_said(told))


@pytest.mark.parametrize("said", [["/speil/region/a", "/speil/region/b"], ["/speil/region/"], ["/speil/region/A b"]])
def test_a_peer_that_says_nonsense_is_in_no_region(said: list[str]) -> None:
    assert region_said(said) == CONTRADICTION
    assert not Policy("a", unsaid=True).admits(region_said(said))


@pytest.mark.parametrize(
    ("host", "covered"),
    [("10.1.2.3", True), ("10.2.0.1", False), ("::ffff:10.1.2.3", True), ("fd01::5%eth0", True), ("fd02::5", False),
     ("peer.test", False)],
)  # fmt: skip
def test_networks_cover_their_addresses(host: str, covered: bool) -> None:
    assert Policy("a", False, (ip_network("10.1.0.0/16"), ip_network("fd01::/64"))).covers(host) == covered
    assert Policy("a", False).covers(host), "without networks there is no such border"


@given(st.lists(SECRETS, min_size=1, max_size=SECRETS_MAX, unique=True), LABELS, LABELS)
def test_keys_differ_by_secret_region_and_purpose_and_hide_the_secret(
    lines: list[str], region: str, other: str
) -> None:
    secret = parse("\n".join([*lines, "", "  "]), region)
    keys = [*secret.noise_keys, *secret.peer_keys, *secret.node_keys]
    assert len(set(keys)) == 3 * len(lines)
    assert parse("\r\n".join(lines), region) == secret
    assert (parse("\n".join(lines), other) == secret) == (region == other)
    assert all(line not in repr(secret) for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty"), ("\n \n", "empty"), ("short", "line 1 has 5"), (f"{'a' * 20}\nshort", "line 2 has 5"),
     ("x" * 2000, "line 1 has 2000"), (f"{'a' * 20}\n{'a' * 20}", "twice"),
     ("\n".join(str(number) * 20 for number in range(9)), "at most 8")],
)  # fmt: skip
def test_a_bad_secret_is_refused_in_words_that_do_not_tell_it(text: str, said: str) -> None:
    with pytest.raises(SecretError, match=said) as caught:
        parse(text, "r")
    assert "aaaa" not in str(caught.value)


@given(st.binary(min_size=32, max_size=32), REQUESTS, st.integers(0, 10**11), st.integers(-90, 90))
def test_a_token_is_good_for_its_request_and_its_minute(key: bytes, request: Request, now: int, off: int) -> None:
    token = sign_request(key, request, issued=now, nonce=NONCE)
    refusal = RequestTokens().check([b"another key", key], request, token, now + off)
    assert (refusal is None) == (abs(off) <= TOKEN_SECONDS_MAX)
    assert RequestTokens().check([b"another key"], request, token, now) == "wrong"


@given(st.binary(min_size=32, max_size=32), REQUESTS, REQUESTS)
def test_a_token_is_for_one_request_and_once(key: bytes, request: Request, other: Request) -> None:
    tokens, token = RequestTokens(), sign_request(key, request, issued=1000, nonce=NONCE)
    if other != request:
        assert tokens.check([key], other, token, 1000) == "wrong"
    assert tokens.check([key], request, token, 1000) is None
    assert tokens.check([key], request, token, 1001) == "used before"
    assert tokens.check([key], request, token, 1000 + 2 * TOKEN_SECONDS_MAX + 1) is not None


@given(
    st.binary(min_size=32, max_size=32), st.text(max_size=80) | st.from_regex(r"\d{1,12}\.[0-9a-f]{16}\.[0-9a-f]{64}")
)
def test_a_forged_token_does_not_count(key: bytes, token: str) -> None:
    assert RequestTokens().check([key], Request("GET", "/v2/", "peer"), token, 1000) is not None
    assert check_node([key], token) is not None


def test_remembered_nonces_are_bounded() -> None:
    tokens, request = RequestTokens(), Request("GET", "/v2/", "peer")
    for number in range(NONCES_MAX + 10):
        token = sign_request(b"key", request, issued=1000, nonce=f"{number:016x}")
        assert tokens.check([b"key"], request, token, 1000) is None
    assert len(tokens) <= NONCES_MAX
    tokens.check([b"key"], request, sign_request(b"key", request, issued=2000, nonce=NONCE), 2000)
    assert len(tokens) == 1


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,60}", fullmatch=True))
def test_a_node_token_is_good_with_any_key_in_force(key: bytes, node: str) -> None:
    assert is_node_name(node)
    token = sign_node(key, node)
    assert check_node([b"new", key], token) is None
    assert check_node([b"new"], token) == "wrong"
    assert check_node([key], token[:-1] + ("0" if token[-1] != "0" else "1")) == "wrong"
    assert check_node([key], "") == "missing"


@pytest.mark.parametrize("name", ["", "-node", "a b", "x'y", "n" * 254, "knoten\n"])
def test_names_that_do_not_fit_into_a_token(name: str) -> None:
    assert not is_node_name(name)
