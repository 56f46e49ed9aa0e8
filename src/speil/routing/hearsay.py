"""Peers that peers name: each teller has its share of those that turn out not to be there.

An honest answer names peers that are there, or were moments ago. Whoever names too many that can't be reached is
believed no more for a while, except in peers that this node has met itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from speil.libp2p.rate import Buckets
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

UNREACHABLE_PER_MINUTE_MAX = 20  # of one teller: honest ones name the dead until they have noticed
NAMED_MAX = 4096  # peers whose teller is remembered
TELLERS_MAX = 1024


class Hearsay:
    """`is_known` says whether this node has met a peer itself. A teller is an address or prefix, not an identity.

    `left_out` hears of each peer that is not believed in.
    """

    def __init__(self, is_known: Callable[[PeerInfo], bool], left_out: Callable[[], None] = lambda: None) -> None:
        self._is_known, self._left_out = is_known, left_out
        self._tellers: OrderedDict[PeerId, str] = OrderedDict()
        self._lies = Buckets(UNREACHABLE_PER_MINUTE_MAX, UNREACHABLE_PER_MINUTE_MAX / 60, TELLERS_MAX)

    def believed(self, teller: str, named: Sequence[PeerInfo], now: float) -> tuple[PeerInfo, ...]:
        """Those of the peers that `teller` named whom this node may try."""
        is_liar = self._lies.of(teller, now).is_empty(now)
        found = []
        for peer in named:
            if not self._is_known(peer):
                if is_liar:
                    self._left_out()
                    continue
                self._remember(peer.peer_id, teller)
            found.append(peer)
        return tuple(found)

    def unreachable(self, peer_id: PeerId, now: float) -> None:
        """A peer is not there: who named it is told less."""
        if teller := self._tellers.pop(peer_id, None):
            self._lies.of(teller, now).take(now)

    def _remember(self, peer_id: PeerId, teller: str) -> None:
        self._tellers.setdefault(peer_id, teller)
        if len(self._tellers) > NAMED_MAX:
            self._tellers.popitem(last=False)
