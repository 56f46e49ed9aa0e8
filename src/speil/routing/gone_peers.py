"""Peers that this node can't reach. They are named to nobody, though they may still be in its tables.

A peer whose connection broke is gone until it is heard of again. After a failed request it may only have been slow, so
it is gone for SLOW_SECONDS.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from speil.multiformats.peer_id import PeerId

SLOW_SECONDS = 10.0  # after a failed request
PEERS_MAX = 512  # the tables of a node do not hold more that are gone at one time


class GonePeers:
    """Times are monotonic seconds of the event loop."""

    def __init__(self) -> None:
        self._until: OrderedDict[PeerId, float] = OrderedDict()

    def lost(self, peer_id: PeerId) -> None:
        """Its connection broke."""
        self._note(peer_id, float("inf"))

    def failed(self, peer_id: PeerId, now: float) -> None:
        """A request to it failed."""
        self._note(peer_id, max(now + SLOW_SECONDS, self._until.get(peer_id, now)))

    def back(self, peer_id: PeerId) -> None:
        """It was heard of."""
        self._until.pop(peer_id, None)

    def at(self, now: float) -> Collection[PeerId]:
        """The peers that are gone now."""
        if not self._until:
            return ()
        return {peer_id for peer_id, until in self._until.items() if until > now}

    def _note(self, peer_id: PeerId, until: float) -> None:
        self._until[peer_id] = until
        self._until.move_to_end(peer_id)
        if len(self._until) > PEERS_MAX:
            self._until.popitem(last=False)
