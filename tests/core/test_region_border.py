"""Who belongs to a region, its secret and its tokens: properties."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.region import token as token_module
from speil.region.mac import mac
from speil.region.node_token import GRACE_SECONDS, Newest, NodeTokens
from speil.region.policy import CONTRADICTION, Policy, label_said, protocols_of, region_said, zone_said
from speil.region.proof import bound, proves, sign_answer
from speil.region.secret import CHARS_MIN, SECRETS_MAX, SecretError, of_credentials, parse
from speil.region.token import (
    NONCES_MAX,
    NONCES_PER_ADDRESS_MAX,
    TOKEN_SECONDS_MAX,
    Request,
    RequestTokens,
    is_node_name,
    sign_node,
    sign_request,
)

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=CHARS_MIN, max_size=64)
REQUESTS = st.builds(Request, st.sampled_from(["GET", "HEAD"]), TEXT, TEXT, TEXT | st.just(""))
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
    keys = [*secret.noise_keys, *secret.peer_keys, *secret.node_keys, *secret.answer_keys]
    assert len(set(keys)) == 4 * len(lines)
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
    assert NodeTokens("").check([key], token, 1000) is not None


def test_remembered_nonces_are_bounded_and_none_is_forgotten_while_its_token_is_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most, most_of_one = 4_000, 1_000  # as NONCES_MAX, of which one address may have a quarter
    assert most // most_of_one == NONCES_MAX // NONCES_PER_ADDRESS_MAX
    monkeypatch.setattr(token_module, "NONCES_MAX", most)
    monkeypatch.setattr(token_module, "NONCES_PER_ADDRESS_MAX", most_of_one)
    tokens, request = RequestTokens(), Request("GET", "/v2/", "peer")

    def ask(number: int, issued: int, now: int, address: str) -> str | None:
        token = sign_request(b"key", request, issued=issued, nonce=f"{number:016x}")
        return tokens.check([b"key"], request, token, now, address)

    for number in range(most_of_one):
        assert ask(number, 1000 + number % 100, 1050, "a") is None
    refused = [ask(number, 1000, 1050, "a") for number in range(10**6, 10**6 + 10)]
    assert all(why and "one too many" in why for why in refused), "a flood costs the one who floods"
    assert len(tokens) == most_of_one
    assert ask(0, 1000, 1050, "b") == "used before", "and nothing of it is forgotten"
    for number in range(most):
        ask(2 * 10**6 + number, 1050, 1050, str(number))
    assert len(tokens) == most
    why = ask(3 * 10**6, 1050, 1050, "c")
    assert why is not None
    assert "one too many" in why
    assert ask(2 * 10**6, 1050, 1110, "d") == "used before", "at the end of its minute"
    assert ask(3 * 10**6, 2000, 2000, "c") is None, "then there is room again"
    assert len(tokens) == 1
    assert len(tokens._by_address) == 1


@given(st.integers(0, 10**11), st.floats(0, 1, exclude_max=True), st.integers(-TOKEN_SECONDS_MAX, TOKEN_SECONDS_MAX))
def test_the_window_starts_with_the_process(second: int, fraction: float, off: int) -> None:
    started = second + fraction
    tokens, request = RequestTokens(started), Request("GET", "/v2/", "peer")
    issued = max(second + off, 0)
    token = sign_request(b"key", request, issued=issued, nonce=NONCE)
    assert (tokens.check([b"key"], request, token, started) is None) == (issued >= int(started))


def test_a_clock_that_is_set_back_makes_no_token_valid_again() -> None:
    tokens, request = RequestTokens(), Request("GET", "/v2/", "peer")
    token = sign_request(b"key", request, issued=1000, nonce=NONCE)
    later = sign_request(b"key", request, issued=9000, nonce=NONCE)
    assert tokens.check([b"key"], request, token, 1000) is None
    assert tokens.check([b"key"], request, later, 9000) is None
    why = tokens.check([b"key"], request, token, 1010)
    assert why is not None
    assert "older than" in why
    fresh = sign_request(b"key", request, issued=1010, nonce=NONCE)
    assert tokens.check([b"key"], request, fresh, 1010) is None, "what is new goes on"


# --- the node's token -----------------------------------------------------------------------------------------

NODES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,60}", fullmatch=True)
KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS, NODES, NODES, st.integers(0, 10**11))
def test_a_node_token_is_good_at_its_node_with_any_key_in_force(key: bytes, node: str, other: str, now: int) -> None:
    assert is_node_name(node)
    token = sign_node(key, node, now)
    assert NodeTokens(node).check([b"new", key], token, now) is None
    assert NodeTokens("").check([key], token, now) is None, "a node that does not know its name takes any"
    assert NodeTokens(node).check([b"new"], token, now) == "wrong"
    assert NodeTokens(node).check([key], token[:-1] + ("0" if token[-1] != "0" else "1"), now) == "wrong"
    assert NodeTokens(node).check([key], "", now) == "missing"
    if other != node:
        assert "that of node" in (NodeTokens(other).check([key], token, now) or "")


def test_a_token_of_an_older_version_is_refused_and_says_so() -> None:
    why = NodeTokens("n").check([b"key"], "n." + "0" * 64, 1000)
    assert why is not None
    assert "older version" in why


@given(KEYS, st.integers(1, 10**9), st.integers(1, 10**6), st.integers(0, 3 * GRACE_SECONDS))
def test_a_newer_node_token_replaces_the_older_one_after_a_grace(
    key: bytes, first: int, apart: int, after: int
) -> None:
    second = first + apart
    tokens, old, new = NodeTokens("n"), sign_node(key, "n", first), sign_node(key, "n", second)
    assert tokens.check([key], old, first) is None
    assert tokens.check([key], old, second) is None, "until the new one is seen"
    assert tokens.check([key], new, second) is None
    kept = NodeTokens("n", tokens.newest)  # after a restart with a data directory
    for one in (tokens, kept):
        assert (one.check([key], old, second + after) is None) == (after <= GRACE_SECONDS)
        assert one.check([key], new, second + after) is None
        assert one.newest == Newest(second, second)


def test_a_clock_that_was_wrong_locks_nobody_out() -> None:
    key, tokens, day = b"key", NodeTokens("n"), 86400
    ahead = sign_node(key, "n", 10 * day)
    assert tokens.check([key], ahead, day) is None, "signed when the clock was ahead"
    right = sign_node(key, "n", day + 10)
    for now in (day + 10, day + 10 + 2 * GRACE_SECONDS):
        assert tokens.check([key], right, now) is None
    tokens = NodeTokens("n", Newest(10 * day, 10 * day))  # seen with the wrong clock
    for now in (day + 10, day + 10 + 2 * GRACE_SECONDS):
        assert tokens.check([key], right, now) is None


@pytest.mark.parametrize("name", ["", "-node", "a b", "x'y", "n" * 254, "knoten\n"])
def test_names_that_do_not_fit_into_a_token(name: str) -> None:
    assert not is_node_name(name)


# --- an answer's proof ----------------------------------------------------------------------------------------

COVERED = st.sampled_from(
    ["Content-Length", "Content-Range", "Content-Type", "Content-Encoding", "Docker-Content-Digest", "Retry-After",
     "Transfer-Encoding", "X-Speil-Busy", "X-Speil-Images", "X-Speil-Region", "X-Speil-Zone",
     "X-Speil-Topology-Region", "X-Speil-Whatever-Comes"]
)  # fmt: skip
ANSWERS = st.dictionaries(COVERED, st.text(max_size=20), max_size=8)


@given(KEYS, TEXT, st.integers(200, 599), ANSWERS, COVERED, st.text(max_size=20))
def test_a_proof_is_for_one_answer_to_one_request(
    key: bytes, token: str, status: int, answer: dict[str, str], name: str, value: str
) -> None:
    headers = bound(answer.items())
    proof = sign_answer(key, token, status, headers)
    assert proves([b"another", key], proof, token, status, headers), "any key in force will do"
    assert proves([key], proof, token, status, bound((name.upper(), value) for name, value in reversed(answer.items())))
    assert not proves([b"another"], proof, token, status, headers)
    assert not proves([], proof, token, status, headers)
    assert not proves([key], proof, token + "0", status, headers)
    assert not proves([key], proof, token, status + 1, headers)
    if answer.get(name) != value:
        assert not proves([key], proof, token, status, bound({**answer, name: value}.items()))
    for one in answer:
        assert not proves([key], proof, token, status, bound(((n, v) for n, v in answer.items() if n != one)))
    for wrong in ("", proof[:-1], proof.upper() if proof.upper() != proof else "", proof + "0", "é" * 64):
        assert not proves([key], wrong, token, status, headers)


def test_what_a_proof_does_not_cover_is_not_handed_on() -> None:
    told = [("Date", "today"), ("x-speil-proof", "f"), ("X-Speil-Zone", "a"), ("x-speil-zone", "b"), ("Server", "s")]
    assert bound(told) == {"x-speil-zone": "a, b"}, "two values of one name can't be taken for one"


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_parts_of_a_mac_do_not_run_into_each_other(one: list[str], other: list[str]) -> None:
    assert (mac(b"key", *one) == mac(b"key", *other)) == (one == other)
    assert len(mac(b"key", "\udcff")) == 64, "a request line may hold any byte"


@given(st.binary(min_size=1), st.binary(min_size=1), LABELS, LABELS)
def test_keys_of_credentials_are_those_of_their_region_and_no_others(
    one: bytes, other: bytes, region: str, elsewhere: str
) -> None:
    keys = of_credentials(one, region)
    assert keys.requests != keys.answers
    assert (of_credentials(other, region) == keys) == (one == other)
    assert (of_credentials(one, elsewhere) == keys) == (region == elsewhere)
    assert parse("a secret of the region", region).peers != of_credentials(b"a secret of the region", region)
