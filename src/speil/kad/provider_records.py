"""The provider records that this node stores for the mesh.

A record says that a peer announced a key. It expires by itself: its validity is a little longer than the interval at
which holders announce again. Everything is limited, so that nobody can fill this node's memory with announcements.
Records count against the network that they came from (`kad.shares`). When the store is full, records of the network
with most are evicted. When a key has the maximum of providers, the oldest one of the subnet with most is evicted.

There are many records and few peers. So a key is stored as its place (eight bytes of its position), a peer as a number,
and a record as eight bytes (`kad.record_words`). The records of a key are one `bytes`, with an overhead of about 130
bytes for each key. Each peer has a list of its places, so that its records are found when they are evicted.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speil.kad import record_words
from speil.kad.key import place
from speil.kad.network_group import OwnNetwork
from speil.kad.record_words import RECORD_BYTES
from speil.kad.shares import FAVOUR, Share, Shares, is_bigger
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

VALIDITY_SECONDS = 19 * 60.0  # Spegel's: 15 min between announcements and twice 2 min of delay
PROVIDERS_PER_KEY_MAX = 64  # a popular layer is on every node, and a lookup needs only a few
# All that is stored, in words of eight bytes: 32 MiB. A node of a large mesh stores 10,000 records of 6,000 peers, one
# of twenty nodes 50,000 of twenty: a fifth of it.
STORE_WORDS_MAX = 4_000_000
RECORD_WORDS, KEY_WORDS, PROVIDER_WORDS = 2, 16, 256  # of each; a key counts for its first provider
# One peer alone must not fill the store. These are the keys of 1,600 images, 2 MiB.
KEYS_PER_PEER_MAX = 20_000
ADDRESSES_KEPT_MAX = 4  # of one provider; no node dials more
PROVIDERS_ANSWERED_MAX = 20  # in one answer: the load is spread and messages stay small
EXPIRE_KEYS_MAX = 5_000  # at a time: they block the event loop for a few milliseconds
EVICTED_AT_ONCE_MAX = 4_096  # records looked at for one message, however many places it names
_VICTIM_RECORDS_MAX = 64  # after this many evictions the biggest share is searched again
_KEY_LOOKS = 16  # the search for the record to evict from a full key costs as much as this many evictions
OWN = "self"  # the host of this node's own records
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
    """How many evictions one message may still cause."""

    __slots__ = ("left", "victim", "victim_left")

    def __init__(self) -> None:
        self.left, self.victim_left = EVICTED_AT_ONCE_MAX, 0
        self.victim: Share | None = None


class ProviderRecords:
    """The records; times are the caller's monotonic seconds."""

    def __init__(self, own: OwnNetwork | None = None) -> None:
        """`own`: this node's network, whose nodes may store more than strangers."""
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
        """A peer with its addresses; None where it has no record here."""
        number = self._numbers.get(peer_id)
        return None if number is None else self._providers[number].peer

    @property
    def key_count(self) -> int:
        """Keys that have a provider."""
        return len(self._slots)

    def add(self, key: bytes, provider: PeerInfo, now: float, *, host: str = "", is_member: bool = False) -> bool:
        """Store or renew a record; False where a limit refuses it. See `add_places`."""
        return self.add_places((place(key),), provider, now, host=host, is_member=is_member) == 1

    def add_places(
        self, places: Iterable[int], provider: PeerInfo, now: float, *, host: str = "", is_member: bool = False
    ) -> int:
        """Store or renew records of one provider; how many were stored.

        host: the address that the peer's packets come from, OWN for this node itself; "" to use the advertised one.
        is_member: the peer is from the stored list or from the bootstrap.
        """
        number, one = self._register(provider, host, is_member=is_member)
        entry = record_words.pack(number, now + VALIDITY_SECONDS)
        eviction = _Eviction()
        kept = sum(self._put(number, one, place, entry, eviction) for place in places)
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

    def _put(self, number: int, one: _Provider, place: int, entry: bytes, eviction: _Eviction) -> bool:
        slots = self._slots.get(place, b"")
        if (at := record_words.find(slots, number)) >= 0:
            self._slots[place] = slots[:at] + entry + slots[at + RECORD_BYTES :]
            return True
        if one.records >= KEYS_PER_PEER_MAX or not self._make_room(one, eviction):
            return False
        slots = self._slots.get(place, b"")  # a record of this key may have been evicted
        if len(slots) >= PROVIDERS_PER_KEY_MAX * RECORD_BYTES:
            eviction.left -= _KEY_LOOKS
            if eviction.left <= 0 or (at := self._find_evictable(slots, one)) < 0:
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
        """Evict until there is room for one more record and its key; False where there is none."""
        while not newcomer.is_own and self._shares.words + RECORD_WORDS + KEY_WORDS > STORE_WORDS_MAX:
            if eviction.left <= 0:
                return False
            victim = eviction.victim
            if victim is None or not eviction.victim_left or not is_bigger(victim, newcomer.share):
                victim = eviction.victim = self._shares.biggest_but(newcomer.share)
                eviction.victim_left = _VICTIM_RECORDS_MAX
            if victim is None:
                eviction.left = 0  # the rest of the message is refused too
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
        if (at := record_words.find(slots, number)) >= 0:
            self._drop(gone, slots, at)

    def _find_evictable(self, slots: bytes, newcomer: _Provider) -> int:
        """The offset of the record to evict from a full key for a newcomer; -1 where there is none.

        It is the oldest one of the address with most, in the subnet with most. Where no other subnet or address has
        more than the newcomer's, it is one of the newcomer's own.
        """
        pairs = list(record_words.unpack(slots))
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
        return RECORD_BYTES * min(crowd, key=lambda index: pairs[index][1])

    def providers(self, key: bytes, now: float, rng: Random, zone: str = "") -> list[PeerInfo]:
        """Up to PROVIDERS_ANSWERED_MAX valid providers of a key, for a peer in `zone`.

        Half of them are from that zone if it has enough, the others from all zones in turn, at random within each.
        Providers marked as away are named only where there are no others.
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
        """All valid providers of a key without those marked as away; with them where there are no others."""
        valid = int(now + 1)
        known = [number for number, until in record_words.unpack(self._of(place(key))) if until >= valid]
        return [self._providers[number].peer for number in known if number not in self._away] or [
            self._providers[number].peer for number in known
        ]

    def count(self, place: int, until: float, zone: str, without: PeerId) -> tuple[int, int]:
        """How many providers a key has whose records are valid beyond `until`: in all, and in `zone`. Not `without`."""
        known, ends = record_words.numbers_and_ends(self._of(place))
        valid = int(until + 1)
        if ends and min(ends) >= valid:
            numbers = set(known)
        else:
            numbers = {number for number, end in zip(known, ends, strict=True) if end >= valid}
        numbers -= self._away
        numbers.discard(self._numbers.get(without, -1))
        return len(numbers), len(numbers & self._zones.get(zone, _NOBODY))

    def mark_away(self, peer_id: PeerId) -> None:
        """A provider can't be reached: its records do not count until `mark_back` or a new announcement."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._away.add(number)

    def mark_back(self, peer_id: PeerId) -> None:
        """A provider can be reached again."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._away.discard(number)

    def remove(self, key: bytes, peer_id: PeerId) -> None:
        """Remove the record of a peer for a key."""
        self.remove_place(place(key), peer_id)

    def remove_place(self, place: int, peer_id: PeerId) -> None:
        """Remove the record of a peer for a place."""
        if (number := self._numbers.get(peer_id)) is None:
            return
        slots = self._of(place)
        if (at := record_words.find(slots, number)) >= 0:
            self._drop(place, slots, at)

    def expire(self, now: float) -> None:
        """Remove all expired records."""
        while self.expire_some(now):
            pass

    def expire_some(self, now: float) -> bool:
        """Remove expired records from the next EXPIRE_KEYS_MAX keys; False when all keys were looked at."""
        if not self._to_expire:
            self._to_expire = list(self._slots)
        valid, left = int(now + 1), EXPIRE_KEYS_MAX
        while self._to_expire and left > 0:
            left -= 1 + self._expire_key(self._to_expire.pop(), valid)
        return bool(self._to_expire)

    def _expire_key(self, place: int, valid: int) -> int:
        _, ends = record_words.numbers_and_ends(self._of(place))
        if not ends or min(ends) >= valid:
            return 0
        gone = [index for index, end in enumerate(ends) if end < valid]
        for index in reversed(gone):
            self._drop(place, self._of(place), index * RECORD_BYTES)
        return len(gone)

    def _of(self, place: int) -> bytes:
        return self._slots.get(place, b"")

    def _drop(self, place: int, slots: bytes, at: int) -> None:
        """Remove one record. The first provider that is left then counts for the key."""
        number, rest = record_words.number_at(slots, at), record_words.without(slots, at)
        one = self._providers[number]
        one.records -= 1
        self._count -= 1
        one.share.spend(-RECORD_WORDS - KEY_WORDS if at == 0 else -RECORD_WORDS)
        if not rest:
            del self._slots[place]
        else:
            self._slots[place] = rest
            if at == 0:
                self._providers[record_words.number_at(rest, 0)].share.spend(KEY_WORDS)
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
        """Remove places of records that are gone or listed twice, so that the list is about as long as the records."""
        if len(one.places) > 2 * one.records + _STALE_PLACES_MAX:
            known = (place for place in dict.fromkeys(one.places) if record_words.find(self._of(place), number) >= 0)
            one.places = array("Q", known)
