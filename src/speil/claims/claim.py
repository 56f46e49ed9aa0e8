"""The claim of one key: a tree of nodes, and which of them may take one more follower.

Roots are nodes that fetch from the upstream and nodes that have the whole content. A source is found in the asker's
zone first: of complete nodes one that fed the fewest so far, of growing ones the first in the order of asking, so that
the tree stays as flat as it can. Complete nodes that fed PLACES others come last: so no node sends much more than
PLACES copies. Only where the zone has no usable node at all it is looked for in other zones. So one node of each zone
follows across its border.

A source is usable where each node above it may be named, up to a root, and the asker is none of them: otherwise two
nodes would wait for each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from speil.claims.message import Phase, Row
from speil.claims.states import NODE, NodeEvent, NodeState, after
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

PLACES = 2  # followers of one node; three and more exceed the time limit behind a fast upstream
SMALL_BYTES = 8 << 20  # content up to this size has PLACES everywhere: its end comes before a link is full
CHAIN_MAX = 64  # nodes with one place each; a longer chain costs more time than two followers a node
DEPTH_MAX = 92  # a chain, then a tree: thousands of nodes need twelve levels, and orphans bring their own tree along
LOOKS_MAX = 4096  # nodes that one search for a source looks at: a few milliseconds
_PHASES = {
    NodeState.UNKNOWN: Phase.NONE,
    NodeState.FETCHING: Phase.FETCHING,
    NodeState.FOLLOWING: Phase.FOLLOWING,
    NodeState.COMPLETE: Phase.COMPLETE,
    NodeState.FAILED: Phase.NONE,
}


def places_for(size_bytes: int, rate: int, link: int) -> int:
    """How many followers a node feeds: one where the content comes faster than half of what it can send."""
    return 1 if rate and link and size_bytes > SMALL_BYTES and 2 * rate > link else PLACES


@dataclass(slots=True, eq=False)
class Node:
    """A node in the tree; `until` is when it is forgotten. `share`: whom it counts against."""

    peer: PeerInfo
    share: str
    places: int
    until: float
    state: NodeState = NodeState.UNKNOWN
    source: Node | None = None
    followers: set[PeerId] = field(default_factory=set)
    blamed_by: set[str] = field(default_factory=set)
    starved: set[str] = field(default_factory=set)  # shares of followers that it gave no byte, though it was alive
    granted_at: float = 0.0
    is_retried: bool = False
    fed: int = 0  # followers that were placed below it so far, without those that have left the tree since

    @property
    def row(self) -> Row:
        """The row for the next closest nodes."""
        source = self.source.peer.peer_id if self.source else None
        return Row(self.peer, _PHASES[self.state], self.places, source)


def is_above(source: Node, node: Node) -> bool:
    """Whether `source` may be put above `node`: it is not below it."""
    one: Node | None = source
    while one is not None:
        if one is node:
            return False
        one = one.source
    return True


def _leads_up(node: Node, unusable: set[Node]) -> bool:
    """Whether the content comes from a root to `node`, past none of `unusable`.

    Where it does not, the nodes on the way are added to `unusable`: so one search looks at each node once.
    """
    way = list[Node]()
    one: Node | None = node
    for _ in range(DEPTH_MAX):
        if one is not None and one not in unusable and one.state in (NodeState.FETCHING, NodeState.COMPLETE):
            return True
        if one is None or one in unusable or one.state is not NodeState.FOLLOWING:
            unusable.update(way)
            return False
        way.append(one)
        one = one.source
    unusable.add(node)  # it is too deep, those above it are not
    return False


def root_of(node: Node) -> Node:
    """The node at the top of the tree that `node` is in."""
    while node.source is not None:
        node = node.source
    return node


class Claim:
    """The tree of one key. `is_own`: this node has placed nodes in it. Else all of it came from another umpire."""

    def __init__(self) -> None:
        self.is_own = False
        self.has_completed = False  # a node got the content after it was placed or granted here
        self.crawls = 0  # fetchers that were left because they were slow
        self.nodes: dict[PeerId, Node] = {}
        self._growing: dict[str, OrderedDict[PeerId, Node]] = {}  # by zone: with a free place, in the order of asking
        self._complete: dict[str, dict[PeerId, Node]] = {}  # by zone: with a free place
        self._zones: dict[str, dict[PeerId, Node]] = {}  # by zone: all
        self._fetching: set[PeerId] = set()

    @property
    def roots(self) -> int:
        """Nodes that fetch from the upstream."""
        return len(self._fetching)

    def add(self, node: Node) -> None:
        """Add a node that is not in the tree."""
        self.nodes[node.peer.peer_id] = node
        self._zones.setdefault(node.peer.zone, {})[node.peer.peer_id] = node

    def remove(self, node: Node) -> None:
        """Remove a node. Its followers have no usable source then, until they ask again."""
        if node.state is NodeState.FOLLOWING and node.source is not None:
            node.source.fed -= 1  # it did not get the content from there
        if node.state is NodeState.UNKNOWN:
            self.detach(node)
        else:
            self.change(node, NodeEvent.LEFT)
        for peer_id in node.followers:
            self.nodes[peer_id].source = None
        node.followers.clear()
        del self.nodes[node.peer.peer_id]
        zone = self._zones[node.peer.zone]
        del zone[node.peer.peer_id]
        if not zone:
            del self._zones[node.peer.zone]

    def change(self, node: Node, event: NodeEvent, source: Node | None = None) -> None:
        """Something happened to a node; `source` is the one that it follows from now on, with PLACED."""
        node.state = after(NODE, node.state, event)
        self._attach(node, source)
        if node.state is NodeState.FETCHING:
            self._fetching.add(node.peer.peer_id)
        else:
            self._fetching.discard(node.peer.peer_id)
        if event is not NodeEvent.BLAMED and node.state is not NodeState.UNKNOWN:
            node.blamed_by.clear()
            node.starved.clear()
        self._list(node)

    def detach(self, node: Node) -> None:
        """The node does not follow its source any more."""
        self._attach(node, None)

    def retry(self, without: Collection[PeerId], granted_before: float) -> Node | None:
        """A fetcher that was left without a byte, and is alive, may be named once more: the one that asked first.

        Where other fetchers got no byte either, the upstream is slow, and this one has waited longest.
        """
        for node in islice(self.nodes.values(), LOOKS_MAX):
            is_waiting = node.state is NodeState.FAILED and node.starved and not node.is_retried
            if is_waiting and node.granted_at < granted_before and node.peer.peer_id not in without:
                self.change(node, NodeEvent.GRANTED)
                node.is_retried = True
                return node
        return None

    def limit(self, node: Node) -> None:
        """The node can't feed more followers than it has."""
        node.places = len(node.followers)
        self._list(node)

    def find_source(
        self, asker: Node, without: Collection[PeerId], full: Collection[PeerId], rng: Random
    ) -> Node | None:
        """A source for `asker`: not one of `without` nor below one, and not one of `full`. None where there is none."""
        looks = iter(range(LOOKS_MAX))
        unusable, busy = {asker, *self._known(without)}, set(self._known(full))
        zone = asker.peer.zone
        if found := self._find_in((zone,), unusable, busy, rng, looks):
            return found
        return self._find_in([one for one in self._zones if one != zone], unusable, busy, rng, looks)

    def is_usable(self, node: Node, asker: Node, without: Collection[PeerId] = ()) -> bool:
        """Whether `asker` gets the content if it follows `node`."""
        return _leads_up(node, {asker, *self._known(without)})

    def complete_nodes(self, without: Collection[PeerId]) -> Iterator[Node]:
        """Nodes that have the whole content and a free place."""
        nodes = (node for zone in self._complete.values() for node in zone.values())
        return (node for node in nodes if node.peer.peer_id not in without)

    def _known(self, peer_ids: Iterable[PeerId]) -> Iterator[Node]:
        return (node for peer_id in peer_ids if (node := self.nodes.get(peer_id)))

    def _find_in(
        self,
        zones: Iterable[str],
        unusable: set[Node],
        busy: set[Node],
        rng: Random,
        looks: Iterator[int],
    ) -> Node | None:
        zones = list(zones)
        complete = [
            node
            for zone in zones
            for node in islice(self._complete.get(zone, {}).values(), LOOKS_MAX)
            if node not in unusable and node not in busy
        ]
        fewest = min((node.fed for node in complete), default=PLACES)
        least_used = [node for node in complete if node.fed == fewest]
        growing = self._first_growing(zones, unusable, busy, looks) if fewest >= PLACES else None
        return growing or (rng.choice(least_used) if least_used else None)

    def _first_growing(
        self, zones: Iterable[str], unusable: set[Node], busy: set[Node], looks: Iterator[int]
    ) -> Node | None:
        for zone in zones:
            for node in self._growing.get(zone, {}).values():
                if next(looks, None) is None:
                    return None
                if node not in busy and _leads_up(node, unusable):
                    return node
        return None

    def _attach(self, node: Node, source: Node | None) -> None:
        if node.source is not None:
            node.source.followers.discard(node.peer.peer_id)
            self._list(node.source)
        node.source = source
        if source is not None:
            source.followers.add(node.peer.peer_id)
            source.fed += 1
            self._list(source)

    def _list(self, node: Node) -> None:
        """Put the node into the list of those with a free place, or take it out."""
        zone, peer_id = node.peer.zone, node.peer.peer_id
        growing, complete = self._growing.setdefault(zone, OrderedDict()), self._complete.setdefault(zone, {})
        has_place = len(node.followers) < node.places
        if has_place and node.state in (NodeState.FETCHING, NodeState.FOLLOWING):
            growing[peer_id] = node
        else:
            growing.pop(peer_id, None)
        if has_place and node.state is NodeState.COMPLETE:
            complete[peer_id] = node
        else:
            complete.pop(peer_id, None)
