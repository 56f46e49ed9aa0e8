"""Tags: which holders are asked, what follows from their answers, and what becomes of promises that were wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.fetch.tag_answers import HOLDERS_ASKED_MAX, MEMBERS, STRANGERS, HolderAnswer, digests_of, whole_images
from speil.fetch.tag_poll import TagPoll
from speil.fetch.tag_promises import (
    BLOB_BROKEN_SECONDS,
    BROKEN_MAX,
    BROKEN_SECONDS,
    PROMISED_MAX,
    TagPromises,
)
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.libp2p.identity import Identity
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.oci.platform import Platform, PlatformImage

PEERS = [PeerInfo(Identity.generate().peer_id, ()) for _ in range(HOLDERS_ASKED_MAX + 4)]
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
AMD64 = Platform.parse("linux/amd64")
SEARCH_SECONDS = 0.02
TAG = "reg.test/lab/app:1"


def says(peer: PeerInfo, digest: Digest = OLD, *images: PlatformImage) -> HolderAnswer:
    return HolderAnswer(peer, digest, images or None)


def has_ended(poll: TagPoll, now: float) -> bool:
    return poll.next_deadline(now) <= now


# --- what follows from answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "answered", "found"),
    [
        (None, (), set()),
        (OLD, (), {OLD}),
        (None, (OLD, OLD), {OLD}),
        (OLD, (OLD,), {OLD}),
        (OLD, (NEW,), {OLD, NEW}),
        (None, (OLD, OLD, NEW), {OLD, NEW}),
    ],
)
def test_one_other_digest_is_enough_for_the_upstream_to_decide(
    own: Digest | None, answered: tuple[Digest, ...], found: set[Digest]
) -> None:
    assert digests_of(own, [says(peer, digest) for peer, digest in zip(PEERS, answered, strict=False)]) == found


def test_images_that_any_holder_has_whole_count() -> None:
    image = PlatformImage(NEW, AMD64)
    assert whole_images([says(PEERS[0]), says(PEERS[1], OLD, image)]) == {NEW: image}


# --- whom to ask -------------------------------------------------------------------------------------------------


def test_members_are_asked_for_three_answers_and_no_more() -> None:
    poll = TagPoll(MEMBERS, 0.0, SEARCH_SECONDS)
    for peer in PEERS[:5]:
        poll.found(peer, 0.0)
        poll.found(peer, 0.0)  # named twice
    assert poll.asks(0.0) == PEERS[:3]
    assert poll.asks(0.0) == []
    for peer in PEERS[:3]:
        assert not has_ended(poll, 0.01)
        poll.answered(says(peer), 0.01)
    assert has_ended(poll, 0.01)
    assert [answer.peer for answer in poll.answers] == PEERS[:3]


def test_for_each_one_that_does_not_answer_soon_one_more_is_asked() -> None:
    poll = TagPoll(MEMBERS, 0.0, SEARCH_SECONDS)
    for peer in PEERS[:5]:
        poll.found(peer, 0.0)
    poll.asks(0.0)
    poll.answered(says(PEERS[0]), 0.01)
    poll.failed(PEERS[1].peer_id, 0.01)
    assert poll.asks(0.01) == PEERS[3:4]
    assert poll.asks(MEMBERS.more_answers_seconds) == PEERS[4:5], "the third is late"
    assert poll.next_deadline(0.01) == pytest.approx(0.01 + MEMBERS.more_answers_seconds)


def test_strangers_are_asked_up_to_a_bound() -> None:
    poll = TagPoll(STRANGERS, 0.0, SEARCH_SECONDS)
    for peer in PEERS:
        poll.found(peer, 0.0)
    for peer in poll.asks(0.0):
        poll.failed(peer.peer_id, 0.0)
    assert poll.asks(0.0) == []
    assert poll.asked == HOLDERS_ASKED_MAX
    assert has_ended(poll, 0.0), "it does not wait for a search whose holders it may not ask"


def test_without_a_holder_it_waits_as_long_as_the_search_may_take() -> None:
    poll = TagPoll(MEMBERS, 0.0, SEARCH_SECONDS)
    assert poll.next_deadline(0.0) == SEARCH_SECONDS
    poll.search_ended()
    assert has_ended(poll, 0.0)
    silent = TagPoll(MEMBERS, 0.0, SEARCH_SECONDS)
    silent.found(PEERS[0], 0.0)
    silent.asks(0.0)
    silent.failed(PEERS[0].peer_id, 0.5)
    assert silent.next_deadline(0.5) == 0.5 + SEARCH_SECONDS, "after one that failed the search has its time again"


@given(st.lists(st.tuples(st.integers(0, len(PEERS) - 1), st.sampled_from("fasgx"), st.floats(0, 0.2)), max_size=60))
def test_whatever_happens_it_ends_in_time_and_asks_each_holder_once(
    course: list[tuple[int, str, float]],
) -> None:
    poll, now, asked = TagPoll(STRANGERS, 0.0, SEARCH_SECONDS), 0.0, list[PeerInfo]()
    for number, event, seconds in course:
        now += seconds
        peer = PEERS[number]
        match event:
            case "f":
                poll.found(peer, now)
            case "a" if peer in asked:
                poll.answered(says(peer), now)
            case "x" if peer in asked:
                poll.failed(peer.peer_id, now)
            case "s":
                poll.search_ended()
            case _:
                asked += poll.asks(now)
    assert len(set(asked)) == len(asked) == poll.asked <= HOLDERS_ASKED_MAX
    assert poll.next_deadline(now) <= FIRST_BYTE_SECONDS_MAX or now > FIRST_BYTE_SECONDS_MAX
    assert has_ended(poll, max(now, FIRST_BYTE_SECONDS_MAX))


# --- promises ----------------------------------------------------------------------------------------------------


def test_a_tag_whose_content_nobody_had_is_left_to_the_upstream_for_a_while() -> None:
    promises = TagPromises()
    promises.promise(TAG, [OLD])
    promises.served(OLD, [NEW])
    assert not promises.is_broken(TAG, 0.0)
    assert promises.broke(NEW, 0.0, is_manifest=False) == (TAG, BLOB_BROKEN_SECONDS)
    assert promises.is_broken(TAG, BLOB_BROKEN_SECONDS - 1)
    assert not promises.is_broken(TAG, BLOB_BROKEN_SECONDS)
    assert promises.broke(OLD, 0.0, is_manifest=True) == (TAG, BROKEN_SECONDS)
    assert promises.is_broken(TAG, BROKEN_SECONDS - 1)


def test_a_later_shorter_time_does_not_end_a_longer_one() -> None:
    promises = TagPromises()
    promises.promise(TAG, [OLD, NEW])
    promises.broke(OLD, 0.0, is_manifest=True)
    promises.broke(NEW, 1.0, is_manifest=False)
    assert promises.is_broken(TAG, BROKEN_SECONDS - 1)


def test_content_that_no_tag_led_to_breaks_no_tag() -> None:
    promises = TagPromises()
    promises.served(OLD, [NEW])
    assert promises.broke(NEW, 0.0, is_manifest=True) is None


def test_promises_and_broken_tags_are_bounded_oldest_first() -> None:
    promises = TagPromises()
    digests = [Digest.of(str(number).encode()) for number in range(PROMISED_MAX + 1)]
    promises.promise(TAG, digests)
    assert promises.broke(digests[0], 0.0, is_manifest=True) is None
    assert promises.broke(digests[1], 0.0, is_manifest=True) is not None
    for number in range(BROKEN_MAX):
        promises.promise(f"reg.test/other:{number}", [OLD])
        promises.broke(OLD, 0.0, is_manifest=True)
    assert not promises.is_broken(TAG, 0.0)
    assert promises.is_broken(f"reg.test/other:{BROKEN_MAX - 1}", 0.0)
