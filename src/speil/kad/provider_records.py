"""Who has what: the provider records this node keeps for the mesh.

A record says that a peer announced a key, and runs out by itself: validity is a little more than the interval at
which holders announce anew. All is bounded, so that nobody can fill our memory with announcements; where a bound is
hit the oldest record of that key goes, or the newcomer is turned away.

There are many records and few peers. So a key is kept as its place (eight bytes of its position), a peer as a number,
and a record as one machine word: the second at which it runs out above the peer's number, so that words compare by
age. The records of a key are one `bytes` of such words, 8 bytes a record and about 130 a key.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speil.kad.key import place
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

VALIDITY_SECONDS = 19 * 60.0  # Spegel's: 15 min between announcements and twice 2 min of delay
PROVIDERS_PER_KEY_MAX = 64  # a popular layer is on every node; a lookup needs a few of them
KEYS_MAX = 100_000  # a node keeps about 20 times its own rare keys; all bounds reached are 32 MiB
RECORDS_MAX = 500_000
KEYS_PER_PEER_MAX = 40_000  # one peer alone must not take it all
PROVIDERS_MAX = 6_000  # the nodes of a large region; their addresses are kept as well
ADDRESSES_KEPT_MAX = 4  # of one provider; nobody dials more
PROVIDERS_ANSWERED_MAX = 20  # in one answer: load spreads, messages stay small
EXPIRE_KEYS_MAX = 5_000  # at a time: a few milliseconds, in which nobody is answered
_NUMBER_BITS = 32
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1


@dataclass(slots=True)
class _Provider:
    peer: PeerInfo
    records: int = 0
    away: bool = False


class ProviderRecords:
    """The records; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._words: dict[int, bytes] = {}
        self._numbers: dict[PeerId, int] = {}
        self._providers: dict[int, _Provider] = {}
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
        return len(self._words)

    def add(self, key: bytes, provider: PeerInfo, now: float) -> bool:
        """Keep or renew a record; False where a bound turns it away."""
        return self.add_places((place(key),), provider, now) == 1

    def add_places(self, places: Iterable[int], provider: PeerInfo, now: float) -> int:
        """Keep or renew records of one provider; how many were kept."""
        number = self._numbers.get(provider.peer_id)
        if number is None:
            if len(self._providers) >= PROVIDERS_MAX:
                return 0
            while self._next_number in self._providers:
                self._next_number = (self._next_number + 1) & _NUMBER_MASK
            number = self._numbers[provider.peer_id] = self._next_number
            self._providers[number] = _Provider(provider)
        one = self._providers[number]
        one.peer = PeerInfo(provider.peer_id, provider.addresses[:ADDRESSES_KEPT_MAX], provider.zone)
        one.away = False
        word = _word(now + VALIDITY_SECONDS) | number
        kept = sum(self._put(one, place, word) for place in places)
        self._forget_unused(number)
        return kept

    def _put(self, provider: _Provider, place: int, word: int) -> bool:
        words = array("Q", self._words.get(place, b""))
        number = word & _NUMBER_MASK
        for index, old in enumerate(words):
            if old & _NUMBER_MASK == number:
                words[index] = word
                self._words[place] = words.tobytes()
                return True
        if provider.records >= KEYS_PER_PEER_MAX or (not words and len(self._words) >= KEYS_MAX):
            return False
        if words and (len(words) >= PROVIDERS_PER_KEY_MAX or self._count >= RECORDS_MAX):
            oldest = min(words)
            words[words.index(oldest)] = word
            self._uncount(oldest & _NUMBER_MASK)
            self._forget_unused(oldest & _NUMBER_MASK)
        elif self._count >= RECORDS_MAX:
            return False
        else:
            words.append(word)
        provider.records += 1
        self._count += 1
        self._words[place] = words.tobytes()
        return True

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
        valid = _word(now + 1)
        known = [self._providers[word & _NUMBER_MASK] for word in self._of(place(key)) if word >= valid]
        return [one.peer for one in known if not one.away] or [one.peer for one in known]

    def count(self, place: int, until: float, zone: str, without: PeerId) -> tuple[int, int]:
        """How many live providers a key has whose records are valid beyond `until`: in all, and in `zone`."""
        total = near = 0
        valid = _word(until + 1)
        for word in self._of(place):
            if word < valid:
                continue
            one = self._providers[word & _NUMBER_MASK]
            if not one.away and one.peer.peer_id != without:
                total += 1
                near += one.peer.zone == zone
        return total, near

    def mark_away(self, peer_id: PeerId) -> None:
        """A provider can't be reached: until it is heard of again its records don't count."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._providers[number].away = True

    def mark_back(self, peer_id: PeerId) -> None:
        """A provider gave a sign of life."""
        if (number := self._numbers.get(peer_id)) is not None:
            self._providers[number].away = False

    def remove(self, key: bytes, peer_id: PeerId) -> None:
        """Drop one record."""
        number = self._numbers.get(peer_id)
        words = self._of(place(key))
        kept = array("Q", (word for word in words if word & _NUMBER_MASK != number))
        if len(kept) < len(words):
            self._keep(place(key), kept, words)

    def expire(self, now: float) -> None:
        """Drop what has run out."""
        while self.expire_some(now):
            pass

    def expire_some(self, now: float) -> bool:
        """Look at the next EXPIRE_KEYS_MAX keys and drop what has run out; False when all have been looked at."""
        if not self._to_expire:
            self._to_expire = list(self._words)
        batch, self._to_expire = self._to_expire[-EXPIRE_KEYS_MAX:], self._to_expire[:-EXPIRE_KEYS_MAX]
        valid = _word(now + 1)
        for one in batch:
            words = self._of(one)
            if words and min(words) < valid:
                self._keep(one, array("Q", (word for word in words if word >= valid)), words)
        return bool(self._to_expire)

    def _of(self, place: int) -> array[int]:
        return array("Q", self._words.get(place, b""))

    def _keep(self, place: int, kept: array[int], words: array[int]) -> None:
        if kept:
            self._words[place] = kept.tobytes()
        else:
            del self._words[place]
        still = set(kept)
        for word in words:
            if word not in still:
                self._uncount(word & _NUMBER_MASK)
                self._forget_unused(word & _NUMBER_MASK)

    def _uncount(self, number: int) -> None:
        self._count -= 1
        self._providers[number].records -= 1

    def _forget_unused(self, number: int) -> None:
        if (provider := self._providers.get(number)) and not provider.records:
            del self._providers[number], self._numbers[provider.peer.peer_id]


def _word(second: float) -> int:
    """The least word of a record that runs out in that second."""
    return int(second) << _NUMBER_BITS
