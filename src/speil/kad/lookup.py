"""One iterative lookup (libp2p kad-dht spec, "Peer routing" and "Content provider discovery"). A machine.

It starts from the peers we know, asks the closest that have not been asked, α at a time, and takes in whom they
name. It has converged when the k closest peers it has heard of have all answered (or fewer: BETA are enough to know
who the k closest are, if not that they live); peers that fail don't count.
Every answer brings it nearer or leaves the set as it is, and each peer is asked once, so it ends.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from speil.kad.key import position
from speil.kad.routing_table import K
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

ALPHA = 10  # requests at a time: go-libp2p's value; a region's lookups take milliseconds, not bandwidth
BETA = 3  # go-libp2p-kad-dht's resiliency: what the closest say of their own neighbourhood is complete
QUERY_SECONDS_MAX = 3.0  # a peer that takes longer is as good as gone
PEERS_HEARD_MAX = 500  # liars can name new peers for ever; an honest lookup hears of under two hundred


class _State(Enum):
    HEARD = auto()
    ASKED = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True)
class _Candidate:
    peer: PeerInfo
    distance: int
    state: _State = _State.HEARD
    deadline: float = 0.0


class Lookup:
    """A lookup for the position of a key; `ask(now)` says whom to ask, until `done`."""

    def __init__(self, key: bytes, local: PeerId, seeds: Iterable[PeerInfo], converge: int = K) -> None:
        """`converge`: how many of the closest must have answered."""
        self.key, self._target, self._local, self._converge = key, position(key), local, converge
        self._candidates: dict[PeerId, _Candidate] = {}
        self._hear(seeds)

    @property
    def done(self) -> bool:
        """Whether the closest have all answered, or there is nobody left to ask."""
        return not any(item.state in (_State.HEARD, _State.ASKED) for item in self._closest(self._converge))

    @property
    def answered_count(self) -> int:
        """How many peers have answered: the lookup's cost."""
        return sum(item.state is _State.ANSWERED for item in self._candidates.values())

    def ask(self, now: float) -> list[PeerInfo]:
        """Whom to ask now; each is then waited for until its deadline."""
        running = sum(item.state is _State.ASKED for item in self._candidates.values())
        chosen: list[PeerInfo] = []
        for item in self._closest(self._converge):
            if running + len(chosen) >= ALPHA:
                break
            if item.state is _State.HEARD:
                item.state, item.deadline = _State.ASKED, now + QUERY_SECONDS_MAX
                chosen.append(item.peer)
        return chosen

    def answered(self, peer_id: PeerId, closer_peers: Iterable[PeerInfo]) -> None:
        """A peer answered and named others. One that had been given up is taken back."""
        if item := self._candidates.get(peer_id):
            if item.state is not _State.HEARD:
                item.state = _State.ANSWERED
            self._hear(closer_peers)

    def failed(self, peer_id: PeerId) -> None:
        """A peer can't be reached, or answered nonsense."""
        if (item := self._candidates.get(peer_id)) and item.state is _State.ASKED:
            item.state = _State.FAILED

    def next_deadline(self) -> float | None:
        """When to call `expire`: the earliest deadline of a peer that is waited for."""
        return min((item.deadline for item in self._candidates.values() if item.state is _State.ASKED), default=None)

    def expire(self, now: float) -> list[PeerId]:
        """Give up on peers past their deadline; who they are."""
        late = [item for item in self._candidates.values() if item.state is _State.ASKED and item.deadline <= now]
        for item in late:
            item.state = _State.FAILED
        return [item.peer.peer_id for item in late]

    def result(self, count: int = K) -> list[PeerInfo]:
        """The closest peers that answered, closest first."""
        answered = (item for item in self._candidates.values() if item.state is _State.ANSWERED)
        return [item.peer for item in heapq.nsmallest(count, answered, key=lambda item: item.distance)]

    def closest(self) -> list[PeerInfo]:
        """The k closest peers heard of that have not failed, closest first."""
        return [item.peer for item in self._closest(K)]

    def _closest(self, count: int) -> list[_Candidate]:
        """The closest that have not failed."""
        alive = (item for item in self._candidates.values() if item.state is not _State.FAILED)
        return heapq.nsmallest(count, alive, key=lambda item: item.distance)

    def _hear(self, peers: Iterable[PeerInfo]) -> None:
        for peer in peers:
            if len(self._candidates) >= PEERS_HEARD_MAX:
                return
            if peer.peer_id != self._local and peer.peer_id not in self._candidates and peer.addresses:
                distance = position(peer.peer_id.multihash) ^ self._target
                self._candidates[peer.peer_id] = _Candidate(peer, distance)
