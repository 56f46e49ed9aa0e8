"""One iterative lookup (libp2p kad-dht spec, "Peer routing" and "Content provider discovery"). A state machine.

It starts from known peers, asks the closest ones that were not asked yet, α at a time, and adds the peers that they
name. It has converged when the k closest peers it knows of have all answered. Fewer can be enough: with BETA answers
the k closest are known, though not whether they are alive. Peers that fail do not count. Each answer brings the lookup
closer or changes nothing, and each peer is asked once, so the lookup ends.

A peer can name peers that do not exist and are closer than all others. So of the peers that only one network named, a
few are tried at a time (`answer_trust`), and the others come after those that a second network named too. A malicious
peer slows a lookup down, but honest peers are asked at the same time.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from operator import attrgetter

from speil.kad.answer_trust import AnswerTrust
from speil.kad.key import position
from speil.kad.routing_table import K
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

ALPHA = 10  # requests at a time: go-libp2p's value; lookups inside a region cost little bandwidth
BETA = 3  # go-libp2p-kad-dht's resiliency: the closest peers know their own neighbourhood completely
QUERY_SECONDS_MAX = 3.0  # for one peer's answer
SLOW_SECONDS = 0.5  # after this, other peers are asked while this one may still answer
PEERS_HEARD_MAX = 500  # malicious peers can name new peers without end; an honest lookup gets under two hundred
HEARD_FROM_NETWORK_MAX = 3 * K  # of them from one network: an honest answer has k, most of them known already
PEERS_ASKED_MAX = 100  # an honest lookup asks thirty, and sixty where half of the mesh is dead
ADDRESSES_HEARD_MAX = 4  # of one peer
_DISTANCE = attrgetter("distance")


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
    named_by: set[str] = field(default_factory=set)  # networks; empty for a seed
    is_slow: bool = False


class Lookup:
    """A lookup for the position of a key. Until `done`: `ask(now)` gives the peers to ask next."""

    def __init__(
        self,
        key: bytes,
        local: PeerId,
        seeds: Iterable[PeerInfo],
        converge: int = K,
        trust: AnswerTrust | None = None,
    ) -> None:
        """`converge`: how many of the closest must have answered. `trust` is shared by all lookups of a node."""
        self.key, self._target, self._local, self._converge = key, position(key), local, converge
        self._trust = trust or AnswerTrust()
        self._candidates: dict[PeerId, _Candidate] = {}
        self._order: list[_Candidate] = []  # by distance
        self._heard_from: Counter[str] = Counter()
        self._asked = 0
        self._hear(seeds, None)

    @property
    def done(self) -> bool:
        """Whether the closest have all answered, or no peer is left to ask."""
        open_states = (_State.HEARD, _State.ASKED) if self._asked < PEERS_ASKED_MAX else (_State.ASKED,)
        return not any(item.state in open_states for item in self._closest(self._converge))

    @property
    def answered_count(self) -> int:
        """How many peers have answered."""
        return sum(item.state is _State.ANSWERED for item in self._candidates.values())

    def ask(self, now: float) -> list[PeerInfo]:
        """The peers to ask now. Each has QUERY_SECONDS_MAX to answer."""
        running = sum(item.state is _State.ASKED and not item.is_slow for item in self._candidates.values())
        chosen: list[PeerInfo] = []
        for item in self._closest(self._converge):
            if running + len(chosen) >= ALPHA or self._asked >= PEERS_ASKED_MAX:
                break
            if item.state is _State.HEARD:
                self._asked += 1
                item.state, item.deadline = _State.ASKED, now + QUERY_SECONDS_MAX
                chosen.append(item.peer)
        return chosen

    def answered(self, peer_id: PeerId, closer_peers: Iterable[PeerInfo]) -> None:
        """A peer answered and named others. An answer after the deadline counts too."""
        if item := self._candidates.get(peer_id):
            if item.state is not _State.HEARD:
                item.state = _State.ANSWERED
                for network in item.named_by:
                    self._trust.answered(network)
            self._hear(islice(closer_peers, K), self._trust.network_of(peer_id))

    def failed(self, peer_id: PeerId) -> None:
        """A peer can't be reached, or sent a bad answer."""
        if (item := self._candidates.get(peer_id)) and item.state is _State.ASKED:
            self._give_up(item)

    def next_deadline(self) -> float | None:
        """When to call `expire` and `ask` next: when a peer becomes slow or late. None while no peer is asked."""
        waiting = (item for item in self._candidates.values() if item.state is _State.ASKED)
        return min((item.deadline if item.is_slow else _slow_at(item) for item in waiting), default=None)

    def expire(self, now: float) -> list[PeerId]:
        """Give up the peers that are past their deadline; returns them."""
        waiting = [item for item in self._candidates.values() if item.state is _State.ASKED]
        late = [item for item in waiting if item.deadline <= now]
        for item in late:
            self._give_up(item)
        for item in waiting:
            item.is_slow = item.is_slow or _slow_at(item) <= now
        return [item.peer.peer_id for item in late]

    def result(self, count: int = K) -> list[PeerInfo]:
        """The closest peers that answered, closest first."""
        answered = (item.peer for item in self._order if item.state is _State.ANSWERED)
        return list(islice(answered, count))

    def closest(self) -> list[PeerInfo]:
        """The k closest known peers that have not failed, closest first.

        Those that only one network named are added only where places are left.
        """
        chosen = list(islice(self._closest(K), K))
        if len(chosen) < K:
            known = {id(item) for item in chosen}
            others = (item for item in self._order if item.state is not _State.FAILED and id(item) not in known)
            chosen = sorted([*chosen, *islice(others, K - len(chosen))], key=_DISTANCE)
        return [item.peer for item in chosen]

    def _closest(self, count: int) -> Iterator[_Candidate]:
        """The closest that have not failed, with a limit for those that only one network named."""
        waiting, waiting_max = Counter[str](), max(2, count // 2)
        for item in self._order:
            if count <= 0:
                return
            if item.state is _State.FAILED:
                continue
            if network := self._alone_named_by(item):
                if waiting[network] >= self._trust.tried_at_once(network) or waiting.total() >= waiting_max:
                    continue
                waiting[network] += 1
            count -= 1
            yield item

    def _alone_named_by(self, item: _Candidate) -> str | None:
        """The only trusted network that named a peer, or one of the distrusted; None for two, a seed, or an answer."""
        if not item.named_by or item.state is _State.ANSWERED:
            return None
        trusted = [network for network in item.named_by if self._trust.is_trusted(network)]
        return None if len(trusted) > 1 else next(iter(trusted or item.named_by))

    def _give_up(self, item: _Candidate) -> None:
        item.state = _State.FAILED
        for network in item.named_by:
            self._trust.failed(network)

    def _hear(self, peers: Iterable[PeerInfo], network: str | None) -> None:
        for peer in peers:
            if item := self._candidates.get(peer.peer_id):
                if network and item.named_by:
                    item.named_by.add(network)
                continue
            if peer.peer_id == self._local or not peer.addresses or len(self._candidates) >= PEERS_HEARD_MAX:
                continue
            if network:
                if self._heard_from[network] >= HEARD_FROM_NETWORK_MAX:
                    continue
                self._heard_from[network] += 1
            if len(peer.addresses) > ADDRESSES_HEARD_MAX:
                peer = PeerInfo(peer.peer_id, peer.addresses[:ADDRESSES_HEARD_MAX], peer.zone)
            item = _Candidate(peer, position(peer.peer_id.multihash) ^ self._target)
            item.named_by.update([network] if network else [])
            self._candidates[peer.peer_id] = item
            insort(self._order, item, key=_DISTANCE)


def _slow_at(item: _Candidate) -> float:
    return item.deadline - QUERY_SECONDS_MAX + SLOW_SECONDS
