"""What a run of `claims_world` comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from speil.testing.claims_flow import Flow, WorldNode


class Figures:
    """Computed from what was counted."""

    nodes: list[WorldNode]
    layers: Sequence[tuple[bytes, int]]
    image: int  # bytes
    flow: Flow
    messages: Counter[str]

    @property
    def copies(self) -> float:
        """Bytes that left the upstream, in images."""
        return sum(self.flow.upstream_bytes.values()) / self.image

    @property
    def slowest_seconds(self) -> float:
        """From its start until it has the image; infinite where a living node does not have it."""
        seconds = [
            node.done_at - node.started_at if node.done_at is not None else float("inf")
            for node in self.nodes
            if self._counts(node)
        ]
        return max(seconds)

    @property
    def messages_each(self) -> float:
        """Messages of a node for a layer: questions, requests, and what umpires tell; answers are not counted."""
        return self.messages.total() / (len(self.nodes) * len(self.layers))

    def _counts(self, node: WorldNode) -> bool:
        return node.alive and not node.frozen and not node.boasts

    def fetchers(self, key: bytes) -> list[WorldNode]:
        """The living nodes that download a layer from the upstream."""
        return [
            node
            for node in self.nodes
            if (one := node.transfers.get(key))
            and one.upstream_at is not None
            and node.alive
            and key not in node.stored
        ]
