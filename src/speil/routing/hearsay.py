"""Peers that other peers name: how many of them each namer may get wrong.

An honest answer names peers that exist, or existed moments ago. A namer with too many that can't be reached is not
believed for a while, except about peers that this node has met itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.token_bucket import Buckets

UNREACHABLE_PER_MINUTE_MAX = 20  # of one namer: honest ones name dead peers until they notice
NAMED_MAX = 4096  # peers whose namer is remembered
NAMERS_MAX = 1024


class Hearsay:
    """Who named which peer, and how often that was wrong. A namer is an address or prefix, not an identity."""

    def __init__(self, is_known: Callable[[PeerInfo], bool], left_out: Callable[[], None] = lambda: None) -> None:
        """`is_known`: whether this node has met a peer itself. `left_out` is called for each peer not believed in."""
        self._is_known, self._left_out = is_known, left_out
        self._namers: OrderedDict[PeerId, str] = OrderedDict()
        self._errors = Buckets(UNREACHABLE_PER_MINUTE_MAX, UNREACHABLE_PER_MINUTE_MAX / 60, NAMERS_MAX)

    def believed(self, namer: str, named: Sequence[PeerInfo], now: float) -> tuple[PeerInfo, ...]:
        """The peers among `named` that this node may dial."""
        is_distrusted = self._errors.of(namer, now).is_empty(now)
        found = []
        for peer in named:
            if not self._is_known(peer):
                if is_distrusted:
                    self._left_out()
                    continue
                self._remember(peer.peer_id, namer)
            found.append(peer)
        return tuple(found)

    def unreachable(self, peer_id: PeerId, now: float) -> None:
        """A peer can't be reached: count it against the namer."""
        if namer := self._namers.pop(peer_id, None):
            self._errors.of(namer, now).take(now)

    def _remember(self, peer_id: PeerId, namer: str) -> None:
        self._namers.setdefault(peer_id, namer)
        if len(self._namers) > NAMED_MAX:
            self._namers.popitem(last=False)
