"""Who sends bytes to whom: edges within a region, what crosses a border, and the tree of each roll-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from speil.overview.view import InFlight, NodeView, RegionView

NODES_DRAWN_MAX = 60  # of a region: above it, edges are drawn between zones
EDGES_MAX = 200  # of a region, the widest ones
ROLLOUTS_MAX = 20  # those with the most nodes
TREE_NODES_MAX = 100  # of one roll-out, the ones next to the roots
_RECEIVING = ("fetching", "following", "getting")


@dataclass(frozen=True, slots=True)
class Edge:
    """`minute` bytes went from one place to another in the last minute; a place is a node's or a zone's name."""

    source: str
    target: str
    minute: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """Bytes that nodes of `target` got from peers of the region `source`; "?" for peers that were not looked at."""

    source: str
    target: str
    total: int
    minute: int


@dataclass(slots=True)
class Branch:
    """A node in a roll-out, and the nodes that get the content from it."""

    node: str
    zone: str
    role: str  # fetching, following, getting; holds: it has all of it, "" for a peer that was not looked at
    offset: int = 0
    total: int = 0
    below: list[Branch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A content that nodes of a region download now.

    `roles` counts the nodes by role. Those whose total is known have `offset` of `total` bytes together. `trees` has
    the nodes next to the roots, `left_out` says how many more there are.
    """

    region: str
    key: str
    image: str
    roles: Mapping[str, int]
    offset: int
    total: int
    trees: tuple[Branch, ...]
    left_out: int = 0

    @property
    def count(self) -> int:
        """How many nodes download it."""
        return sum(self.roles.values())


class Peers:
    """Which node of which region a peer id or an address is."""

    def __init__(self, views: Iterable[RegionView]) -> None:
        self._nodes: dict[str, tuple[str, NodeView]] = {}
        for view in views:
            for node in view.nodes:
                for name in (*node.hosts, node.peer_id):
                    if name:
                        self._nodes[name] = view.region, node

    def find(self, name: str) -> tuple[str, NodeView] | None:
        """The region and the node; None where it was not looked at."""
        return self._nodes.get(name)


def by_zone(view: RegionView) -> bool:
    """Whether the region has too many nodes to draw an edge between two of them."""
    return len(view.nodes) > NODES_DRAWN_MAX


def edges(view: RegionView, peers: Peers) -> list[Edge]:
    """The widest edges of a region. Bytes within one zone are an edge from the zone to itself."""
    sums: Counter[tuple[str, str]] = Counter()
    grouped = by_zone(view)
    for node in view.nodes:
        for peer_id, received in node.from_peers.items():
            found = peers.find(peer_id)
            if found is None or found[0] != view.region or not received.minute:
                continue
            source = found[1]
            sums[(source.zone, node.zone) if grouped else (source.name, node.name)] += received.minute
    return [Edge(source, target, minute) for (source, target), minute in sums.most_common(EDGES_MAX)]


def crossings(views: Sequence[RegionView], peers: Peers) -> list[Crossing]:
    """What came into each region from each other one, zeros too; pairs with "?" only where bytes came."""
    totals: Counter[tuple[str, str]] = Counter()
    minutes: Counter[tuple[str, str]] = Counter()
    for view in views:
        for node in view.nodes:
            for peer_id, received in node.from_peers.items():
                found = peers.find(peer_id)
                source = found[0] if found else "?"
                totals[source, view.region] += received.total
                minutes[source, view.region] += received.minute
    names = [view.region for view in views if view.region != "?"]
    pairs = [(one, other) for one in names for other in names if one != other]
    pairs += [pair for pair in totals if pair[0] == "?" and totals[pair]]
    return [Crossing(*pair, totals[pair], minutes[pair]) for pair in pairs]


def rollouts(views: Iterable[RegionView], peers: Peers) -> list[Rollout]:
    """The contents that are being downloaded, those with the most nodes first."""
    found = [rollout for view in views for rollout in _of_region(view, peers)]
    return sorted(found, key=lambda one: (-one.count, one.region, one.key))[:ROLLOUTS_MAX]


def _of_region(view: RegionView, peers: Peers) -> Iterator[Rollout]:
    receiving: defaultdict[str, dict[str, tuple[NodeView, InFlight]]] = defaultdict(dict)
    for node in view.nodes:
        for one in node.in_flight:
            if one.role in _RECEIVING:
                receiving[one.key].setdefault(node.name, (node, one))
    for key, nodes in receiving.items():
        flights = [one for _, one in nodes.values()]
        known = [one for one in flights if one.total]
        trees, left_out = _cut(_trees(nodes, peers))
        yield Rollout(
            view.region,
            key,
            next((one.image for one in flights if one.image), ""),
            Counter(one.role for one in flights),
            sum(one.offset for one in known),
            sum(one.total for one in known),
            tuple(trees),
            left_out,
        )


def _trees(nodes: Mapping[str, tuple[NodeView, InFlight]], peers: Peers) -> list[Branch]:
    """A node is below the one it gets the content from. Reports are not of one instant: a circle is cut."""
    branches = {name: Branch(name, node.zone, one.role, one.offset, one.total) for name, (node, one) in nodes.items()}
    holders: dict[str, Branch] = {}
    parents: dict[str, Branch] = {}
    for name in branches:
        peer = nodes[name][1].peer
        if nodes[name][1].role == "fetching" or not peer:
            continue
        found = peers.find(peer)
        source = found[1].name if found else peer
        if source not in branches:
            holders.setdefault(source, Branch(source, found[1].zone if found else "", "holds" if found else ""))
        parents[name] = branches.get(source) or holders[source]
    roots = list(holders.values())
    above: dict[str, str] = {}  # the node that each placed node is below
    for name, branch in branches.items():
        parent = parents.get(name)
        if parent is None or _is_above(name, parent.node, above):
            roots.append(branch)
        else:
            above[name] = parent.node
            parent.below.append(branch)
    return roots


def _is_above(name: str, node: str | None, above: Mapping[str, str]) -> bool:
    """Whether `name` is `node`, or a node that `node` is below."""
    while node is not None:
        if node == name:
            return True
        node = above.get(node)
    return False


def _cut(roots: list[Branch]) -> tuple[list[Branch], int]:
    """The trees with their first TREE_NODES_MAX nodes, level by level; how many are left out."""
    level, room, left_out = roots, TREE_NODES_MAX - len(roots), 0
    while level:
        below: list[Branch] = []
        for branch in level:
            kept = branch.below[: max(room, 0)]
            left_out += sum(map(_size, branch.below[len(kept) :]))
            room -= len(kept)
            branch.below = kept
            below += kept
        level = below
    shown = roots[:TREE_NODES_MAX]
    return shown, left_out + sum(map(_size, roots[TREE_NODES_MAX:]))


def _size(branch: Branch) -> int:
    count, waiting = 0, [branch]
    while waiting:
        count += 1
        waiting += waiting.pop().below
    return count
