"""Which nodes of `claims_world` know which: the closest to a key, and wrong views of who that is."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from random import Random

from speil.kad.key import position
from speil.kad.routing_table import K
from speil.testing.claims_flow import WorldNode


class Views:
    """A node misses each other node with the probability `wrong`, always the same ones."""

    def __init__(self, nodes: Sequence[WorldNode], wrong: float, rng: Random) -> None:
        """`nodes` may grow until the first question."""
        self._nodes, self._wrong, self._rng = nodes, wrong, rng
        self._closest: dict[bytes, list[WorldNode]] = {}
        self._missing: dict[tuple[int, int], bool] = {}

    def closest(self, key: bytes) -> list[WorldNode]:
        """The K nodes that are closest to a key, closest first."""
        if key not in self._closest:
            self._closest[key] = heapq.nsmallest(K, self._nodes, key=lambda node: distance(node, key))
        return self._closest[key]

    def of(self, node: WorldNode, key: bytes) -> list[WorldNode]:
        """Whom a node knows of those closest to a key; itself always."""
        return [one for one in self.closest(key) if one is node or self._knows(node, one)]

    def closer(self, node: WorldNode, key: bytes) -> list[WorldNode]:
        """Whom a node knows that is closer to a key than itself and understands claims."""
        mine = distance(node, key)
        return [one for one in self.of(node, key) if one.has_claims and distance(one, key) < mine]

    def _knows(self, node: WorldNode, other: WorldNode) -> bool:
        if not self._wrong:
            return True
        pair = node.number, other.number
        if pair not in self._missing:
            self._missing[pair] = self._rng.random() < self._wrong
        return not self._missing[pair]


def distance(node: WorldNode, key: bytes) -> int:
    """From a node to a key."""
    return position(node.peer.peer_id.multihash) ^ position(key)
