"""Which peers failed this node lately, as umpires or as sources."""

from __future__ import annotations

from speil.claims.message import AVOIDED_MAX
from speil.claims.noted import Noted
from speil.multiformats.peer_id import PeerId

MUTE_SECONDS = 10.0  # an umpire that did not answer is left out for so long
SILENT_SECONDS = 15.0  # a source without a sign of life may have been cut off or overloaded for a moment
DISTRUST_SECONDS = 60.0  # a source without a byte, where another one had bytes
PEERS_MAX = 100  # of each kind


class Reputation:
    """The peers that are left out for a while. One node has one."""

    def __init__(self) -> None:
        self.mute = Noted[PeerId](MUTE_SECONDS, PEERS_MAX)
        self.silent = Noted[PeerId](SILENT_SECONDS, PEERS_MAX)
        self.distrusted = Noted[PeerId](DISTRUST_SECONDS, PEERS_MAX)

    def avoided(self, now: float) -> tuple[PeerId, ...]:
        """The sources that failed last: an umpire is asked not to name them."""
        failed = (*self.distrusted.last(AVOIDED_MAX, now), *self.silent.last(AVOIDED_MAX, now))
        return tuple(dict.fromkeys(failed))[:AVOIDED_MAX]
