"""How many bytes each peer has sent to this node's containerd: in all, and in the last minute."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from speil.multiformats.peer_id import PeerId

PEERS_MAX = 128  # remembered; the one whose bytes came longest ago is forgotten
WINDOW_SECONDS, STEP_SECONDS = 60.0, 5.0


class _Peer:
    __slots__ = ("steps", "total")

    def __init__(self) -> None:
        self.total = 0
        self.steps: deque[list[float]] = deque()  # start of the step, bytes

    def add(self, size: int, now: float) -> None:
        self.total += size
        if self.steps and now - self.steps[-1][0] < STEP_SECONDS:
            self.steps[-1][1] += size
        else:
            self.steps.append([now, size])
            self._drop(now)

    def in_window(self, now: float) -> int:
        self._drop(now)
        return int(sum(size for _, size in self.steps))

    def _drop(self, now: float) -> None:
        while self.steps and now - self.steps[0][0] >= WINDOW_SECONDS:
            self.steps.popleft()


class PeerBytes:
    """Counts while bodies are sent. Times are loop times."""

    def __init__(self) -> None:
        self._peers: OrderedDict[PeerId, _Peer] = OrderedDict()

    def add(self, peer_id: PeerId, size: int, now: float) -> None:
        """Bytes of a peer were passed on."""
        peer = self._peers.get(peer_id)
        if peer is None:
            peer = self._peers[peer_id] = _Peer()
            if len(self._peers) > PEERS_MAX:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer_id)
        peer.add(size, now)

    def document(self, now: float) -> list[dict[str, Any]]:
        """As JSON objects: `bytes` since the peer is remembered, `minute` of the last minute."""
        return [
            {"peer": str(peer_id), "bytes": peer.total, "minute": peer.in_window(now)}
            for peer_id, peer in self._peers.items()
        ]
