"""Who has what: the provider records this node keeps for the mesh.

A record says that a peer announced a key, and runs out by itself: validity is a little more than the interval at
which holders announce anew. Addresses are kept once per peer. All is bounded, so that nobody can fill our memory
with announcements; where a bound is hit the oldest record of that key goes, or the newcomer is turned away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

VALIDITY_SECONDS = 19 * 60.0  # Spegel's: 15 min between announcements and twice 2 min of delay
PROVIDERS_PER_KEY_MAX = 64  # a popular layer is on every node; a lookup needs a few of them
KEYS_MAX = 100_000  # a node keeps about 20 times its own keys: 200 images of 12 blobs make 48,000
KEYS_PER_PEER_MAX = 40_000  # one peer alone must not take it all
PROVIDERS_ANSWERED_MAX = 20  # in one answer, a random sample: load spreads, messages stay small


class ProviderRecords:
    """The records; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[PeerId, float]] = {}
        self._peers: dict[PeerId, PeerInfo] = {}
        self._counts: dict[PeerId, int] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def key_count(self) -> int:
        """Keys that somebody provides."""
        return len(self._records)

    def add(self, key: bytes, provider: PeerInfo, now: float) -> bool:
        """Keep or renew a record; False where a bound turns it away."""
        holders = self._records.get(key)
        if holders is None or provider.peer_id not in holders:
            if self._counts.get(provider.peer_id, 0) >= KEYS_PER_PEER_MAX:
                return False
            if holders is None:
                if len(self._records) >= KEYS_MAX:
                    return False
                holders = self._records[key] = {}
            if len(holders) >= PROVIDERS_PER_KEY_MAX:
                self._drop(key, min(holders, key=holders.__getitem__))
                holders = self._records.setdefault(key, {})
            self._counts[provider.peer_id] = self._counts.get(provider.peer_id, 0) + 1
        holders[provider.peer_id] = now + VALIDITY_SECONDS
        self._peers[provider.peer_id] = provider
        return True

    def providers(self, key: bytes, now: float, rng: Random) -> list[PeerInfo]:
        """Up to PROVIDERS_ANSWERED_MAX live providers of a key, in random order."""
        live = [peer_id for peer_id, expires in self._records.get(key, {}).items() if expires > now]
        return [self._peers[one] for one in rng.sample(live, min(len(live), PROVIDERS_ANSWERED_MAX))]

    def remove(self, key: bytes, peer_id: PeerId) -> None:
        """Drop one record."""
        if peer_id in self._records.get(key, {}):
            self._drop(key, peer_id)

    def expire(self, now: float) -> None:
        """Drop what has run out."""
        gone = [
            (key, peer_id)
            for key, holders in self._records.items()
            for peer_id, expires in holders.items()
            if expires <= now
        ]
        for key, peer_id in gone:
            self._drop(key, peer_id)

    def _drop(self, key: bytes, peer_id: PeerId) -> None:
        holders = self._records[key]
        del holders[peer_id]
        if not holders:
            del self._records[key]
        self._counts[peer_id] -= 1
        if not self._counts[peer_id]:
            del self._counts[peer_id], self._peers[peer_id]
