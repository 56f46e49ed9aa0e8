"""Who has what: the provider records this node keeps for the mesh.

A record says that a peer announced a key, and runs out by itself: validity is a little more than the interval at
which holders announce anew. All is bounded, so that nobody can fill our memory with announcements. What is kept is
paid by the network it came from (`kad.shares`): when all is taken, records of whoever keeps most give way, and when a
key has as many providers as can be, one of the subnet that has most of them, its oldest.

There are many records and few peers. So a key is kept as its place (eight bytes of its position), a peer as a number,
and a record as eight bytes: the peer's number and the second at which it runs out. The records of a key are one
`bytes` of them, about 130 a key besides. Each peer has a list of its places, so that its records are found when it
has to give way.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speil.kad.key import place
from speil.kad.network_group import OwnNetwork
from speil.kad.shares import FAVOUR, Share, Shares, is_bigger
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

VALIDITY_SECONDS = 19 * 60.0  # Spegel's: 15 min between announcements and twice 2 min of delay
PROVIDERS_PER_KEY_MAX = 64  # a popular layer is on every node; a lookup needs a few of them
# all that is kept, in words of eight bytes: 32 MiB. A node of a large mesh has 10,000 records of 6,000 peers here, one
# of twenty nodes 50,000 of twenty: a fifth of it
STORE_WORDS_MAX = 4_000_000
RECORD_WORDS, KEY_WORDS, PROVIDER_WORDS = 2, 16, 256  # what each takes; the first provider of a key pays for the key
# one peer alone must not take it all: the keys of 1,600 images, 2 MiB
KEYS_PER_PEER_MAX = 20_000
ADDRESSES_KEPT_MAX = 4  # of one provider; nobody dials more
PROVIDERS_ANSWERED_MAX = 20  # in one answer: load spreads, messages stay small
EXPIRE_KEYS_MAX = 5_000  # at a time: a few milliseconds, in which nobody is answered
EVICTED_AT_ONCE_MAX = 4_096  # records looked at for the places of one message, however many it names
_VICTIM_RECORDS_MAX = 64  # after so many it is looked again who keeps most
_KEY_LOOKS = 16  # to find out who gives way in a full key takes as long as to evict so many
OWN = "self"  # the host of this node's own records
_SLOT = 8  # bytes of a record: number, second
_STALE_PLACES_MAX = 64
_NOBODY: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Provider:
    peer: PeerInfo
    share: Share
    is_own: bool = False
    records: int = 0
    places: array[int] = field(default_factory=lambda: array("Q"))  # newest last; some may be gone


class _Eviction:
    """What one message may cost others."""

    __slots__ = ("left", "victim", "victim_left")

    def __init__(self) -> None:
        self.left, self.victim_left = EVICTED_AT_ONCE_MAX, 0
        self.victim: Share | None = None


class ProviderRecords:
    """The records; times are the caller's monotonic seconds."""

    def __init__(self, own: OwnNetwork | None = None) -> None:
        """`own`: this node's network, whose nodes keep more than strangers."""
        self._slots: dict[int, bytes] = {}
        self._numbers: dict[PeerId, int] = {}
        self._providers: dict[int, _Provider] = {}
        self._shares = Shares(own or OwnNetwork())
        self._zones: dict[str, set[int]] = {}
        self._away: set[int] = set()
        self._next_number = 0
        self._count = 0
        self._to_expire: list[int] = []

    def __len__(self) -> int:
        return self._count

    def provider(self, peer_id: PeerId) -> PeerInfo | None:
        """A peer with its addresses, if there are records of it."""
        number = self._numbers.get(peer_id)
        return None if number is None else self._providers[number].peer

    @property
    def key_count(self) -> int:
        """Keys that somebody provides."""
        return len(self._slots)

    def add(self, key: bytes, provider: PeerInfo, now: float, *, host: str = "", is_member: bool = False) -> bool:
        """Keep or renew a record; False where a bound turns it away. See `add_places`."""
        return self.add_places((place(key),), provider, now, host=host, is_member=is_member) == 1

    def add_places(
        self, places: Iterable[int], provider: PeerInfo, now: float, *, host: str = "", is_member: bool = False
    ) -> int:
        """Keep or renew records of one provider; how many were kept.

        `host` is the address that the peer was seen to come from, OWN for this node itself; without it the address that
        it claims stands for it. `is_member`: it is known from before, or from the bootstrap.
        """
        number, one = self._register(provider, host, is_member=is_member)
        entry = _word(number, now + VALIDITY_SECONDS)
        eviction = _Eviction()
        kept = sum(self._put(one, place, entry, eviction) for place in places)
        self._forget_unused(number)
        self._tidy(number, one)
        return kept

    def _register(self, provider: PeerInfo, host: str, *, is_member: bool) -> tuple[int, _Provider]:
        number = self._numbers.get(provider.peer_id)
        peer = PeerInfo(provider.peer_id, provider.addresses[:ADDRESSES_KEPT_MAX], provider.zone)
        if number is None:
            while self._next_number in self._providers:
                self._next_number = (self._next_number + 1) & 0xFFFF_FFFF
            number = self._numbers[peer.peer_id] = self._next_number
            self._next_number = (number + 1) & 0xFFFF_FFFF
            host = host or next(iter(peer.hosts), "")
            share = self._shares.of(number, host, is_own=host == OWN, is_member=is_member)
            one = self._providers[number] = _Provider(peer, share, host == OWN)
            one.share.spend(PROVIDER_WORDS)
        else:
            one = self._providers[number]
            self._leave_zone(one.peer.zone, number)
            one.peer = peer
        self._zones.setdefault(peer.zone, set()).add(number)
        self._away.discard(number)
        return number, one

    def _put(self, one: _Provider, place: int, entry: bytes, eviction: _Eviction) -> bool:
        slots = self._slots.get(place, b"")
        if (at := _find(slots, entry[:4])) >= 0:
            self._slots[place] = slots[:at] + entry + slots[at + _SLOT :]
            return True
        if one.records >= KEYS_PER_PEER_MAX or not self._make_room(one, eviction):
            return False
        slots = self._slots.get(place, b"")  # room may have been made there
        if len(slots) >= PROVIDERS_PER_KEY_MAX * _SLOT:
            eviction.left -= _KEY_LOOKS
            if eviction.left <= 0 or (at := self._who_gives_way(slots, one)) < 0:
                return False
            self._drop(place, slots, at)
            slots = self._slots.get(place, b"")
        self._slots[place] = slots + entry
        one.places.append(place)
        one.records += 1
        self._count += 1
        one.share.spend(RECORD_WORDS if slots else RECORD_WORDS + KEY_WORDS)
        return True

    def _make_room(self, newcomer: _Provider, eviction: _Eviction) -> bool:
        """Whether there is room for one more record, and its key."""
        while not newcomer.is_own and self._shares.words + RECORD_WORDS + KEY_WORDS > STORE_WORDS_MAX:
            if eviction.left <= 0:
                return False
            victim = eviction.victim
            if victim is None or not eviction.victim_left or not is_bigger(victim, newcomer.share):
                victim = eviction.victim = self._shares.biggest_but(newcomer.share)
                eviction.victim_left = _VICTIM_RECORDS_MAX
            if victim is None:
                eviction.left = 0  # nor for what comes after it
                return False
            eviction.left -= 1
            eviction.victim_left -= 1
            self._drop_newest(int(victim.name))
            if not victim.words:
                eviction.victim = None
        return True

    def _drop_newest(self, number: int) -> None:
        one = self._providers[number]
        if not one.places:
            self._forget_unused(number)
            return
        gone = one.places.pop()
        slots = self._slots.get(gone, b"")
        if (at := _find(slots, struct.pack("<I", number))) >= 0:
            self._drop(gone, slots, at)

    def _who_gives_way(self, slots: bytes, newcomer: _Provider) -> int:
        """Where in a key's full list a newcomer may take a place; -1 where it may not.

        The oldest of the subnet that has most there, and in it of the address, goes; of the newcomer's own where no
        other has more than that.
        """
        pairs = list(struct.iter_unpack("<II", slots))
        crowd = list(range(len(pairs)))
        for level in (1, 2):  # subnet, address
            groups = [self._providers[pairs[index][0]].share.above(level) for index in crowd]
            mine, counts = newcomer.share.above(level), Counter(groups)
            weights = {
                group: count // FAVOUR if group.favoured and not mine.favoured else count
                for group, count in counts.items()
            }
            most = max(weights.values())
            if most > counts[mine]:
                crowd = [index for index, group in zip(crowd, groups, strict=True) if weights[group] == most]
            else:
                crowd = [index for index, group in zip(crowd, groups, strict=True) if group is mine]
            if not crowd:
                return -1
        return _SLOT * min(crowd, key=lambda index: pairs[index][1])

    def providers(self, key: bytes, now: float, rng: Random, zone: str = "") -> list[PeerInfo]:
        """Up to PROVIDERS_ANSWERED_MAX live providers of a key for an asker in `zone`.

        Half of them are from the asker's zone if there are as many, the others from all zones in turn, by chance
        within each. Those that were found away come only where there are no others.
        """
        zones: dict[str, list[PeerInfo]] = {}
        for peer in self.live(key, now):
            zones.setdefault(peer.zone, []).append(peer)
        for peers in zones.values():
            rng.shuffle(peers)
        near = zones.pop(zone, []) if zone else []
        answer, near = near[: PROVIDERS_ANSWERED_MAX // 2], near[PROVIDERS_ANSWERED_MAX // 2 :]
        queues = list(zones.values())
        rng.shuffle(queues)
        while queues and len(answer) < PROVIDERS_ANSWERED_MAX:
            answer.extend(peers.pop() for peers in queues[: PROVIDERS_ANSWERED_MAX - len(answer)])
            queues = [peers for peers in queues if peers]
        return answer + near[: PROVIDERS_ANSWERED_MAX - len(answer)]

    def live(self, key: bytes, now: float) -> list[PeerInfo]:
        """All providers of a key that are there; if all were found away, those."""
        valid = int(now + 1)
        known = [number for number, until in struct.iter_unpack("<II", self._of(place(key))) if until >= valid]
        return [self._providers[number].peer for number in known if number not in self._away] or [
            self._providers[number].peer for number in known
        ]

    def count(self, place: int, until: float, zone: str, without: PeerId) -> tuple[int, int]:
        """How many live providers a key has whose records are valid beyond `until`: in all, and in `zone`."""
        slots, valid = self._of(place), int(until + 1)
        halves = struct.unpack(f"<{len(slots) // 4}I", slots)
        ends = halves[1::2]
        if ends and min(ends) >= valid:
            numbers = set(halves[::2])
        else:
            numbers = {number for number, end in zip(halves[::2], ends, strict=True) if end >= valid}
        numbers -= self._away
        numbers.discard(self._numbers.get(without, -1))
        return len(numbers), len(numbers & self._zones.get(zone, _NOBODY))

    def mark_away(self, peer_id: PeerId) -> None:
        """A provider can't be reached: until it is heard of again its records don't count."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._away.add(number)

    def mark_back(self, peer_id: PeerId) -> None:
        """A provider gave a sign of life."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._away.discard(number)

    def remove(self, key: bytes, peer_id: PeerId) -> None:
        """Drop one record."""
        self.remove_place(place(key), peer_id)

    def remove_place(self, place: int, peer_id: PeerId) -> None:
        """Drop one record."""
        if (number := self._numbers.get(peer_id)) is None:
            return
        slots = self._of(place)
        if (at := _find(slots, struct.pack("<I", number))) >= 0:
            self._drop(place, slots, at)

    def expire(self, now: float) -> None:
        """Drop what has run out."""
        while self.expire_some(now):
            pass

    def expire_some(self, now: float) -> bool:
        """Look at the next EXPIRE_KEYS_MAX keys, or records to drop, and drop what has run out; False at the end."""
        if not self._to_expire:
            self._to_expire = list(self._slots)
        valid, left = int(now + 1), EXPIRE_KEYS_MAX
        while self._to_expire and left > 0:
            left -= 1 + self._expire_key(self._to_expire.pop(), valid)
        return bool(self._to_expire)

    def _expire_key(self, place: int, valid: int) -> int:
        slots = self._of(place)
        ends = struct.unpack(f"<{len(slots) // 4}I", slots)[1::2]
        if not ends or min(ends) >= valid:
            return 0
        gone = [index for index, end in enumerate(ends) if end < valid]
        for index in reversed(gone):
            self._drop(place, self._of(place), index * _SLOT)
        return len(gone)

    def _of(self, place: int) -> bytes:
        return self._slots.get(place, b"")

    def _drop(self, place: int, slots: bytes, at: int) -> None:
        """One record goes; who comes first in its key then pays for the key."""
        (number,) = struct.unpack_from("<I", slots, at)
        one, rest = self._providers[number], slots[:at] + slots[at + _SLOT :]
        one.records -= 1
        self._count -= 1
        one.share.spend(-RECORD_WORDS - KEY_WORDS if at == 0 else -RECORD_WORDS)
        if not rest:
            del self._slots[place]
        else:
            self._slots[place] = rest
            if at == 0:
                (first,) = struct.unpack_from("<I", rest)
                self._providers[first].share.spend(KEY_WORDS)
        self._forget_unused(number)

    def _forget_unused(self, number: int) -> None:
        if (one := self._providers.get(number)) and not one.records:
            one.share.spend(-PROVIDER_WORDS)
            one.share.leave()
            self._leave_zone(one.peer.zone, number)
            self._away.discard(number)
            del self._providers[number], self._numbers[one.peer.peer_id]

    def _leave_zone(self, zone: str, number: int) -> None:
        numbers = self._zones[zone]
        numbers.discard(number)
        if not numbers:
            del self._zones[zone]

    def _tidy(self, number: int, one: _Provider) -> None:
        """Forget the places of records that are gone, or came twice: the list stays about as long as the records."""
        if len(one.places) > 2 * one.records + _STALE_PLACES_MAX:
            entry = struct.pack("<I", number)
            known = (place for place in dict.fromkeys(one.places) if entry in self._slots.get(place, b""))
            one.places = array("Q", known)


def _word(number: int, until: float) -> bytes:
    """A record."""
    return struct.pack("<II", number, int(until))


def _find(slots: bytes, number: bytes) -> int:
    """Where a peer's record is among a key's, -1 where it is not."""
    at = slots.find(number)
    while at >= 0 and at % _SLOT:
        at = slots.find(number, at + 1)
    return at
