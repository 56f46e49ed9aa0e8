"""How much to trust the peers that a network names: how many of them answered.

A peer can name anything: unused addresses, or strangers to make this node dial them. It looks like a peer whose
neighbours have just died, so a wrong name is not punished. But where many of the named peers did not answer, only a few
are tried at a time, until some answer. The counts are by network, not by identity, because identities cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from speil.multiformats.peer_id import PeerId

TRIED_AT_ONCE_MAX = 5  # of the peers that only one network named, in one lookup: a quarter of k
TRIED_DISTRUSTED_MAX = 1
FAILED_MAX = 8  # failures before the ratio matters
FAILED_PER_ANSWERED = 3
REMEMBERED_MAX = 64  # results of one network; then both counts are halved, so that trust can change
NETWORKS_MAX = 1024


def _itself(peer_id: PeerId) -> str:
    return peer_id.multihash.hex()


class AnswerTrust:
    """The counts of one node, from all of its lookups."""

    def __init__(self, network_of: Callable[[PeerId], str] = _itself) -> None:
        """`network_of` gives the network that a peer belongs to."""
        self.network_of = network_of
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def answered(self, network: str) -> None:
        """A peer that `network` named has answered."""
        self._count(network, 1, 0)

    def failed(self, network: str) -> None:
        """A peer that `network` named has not answered."""
        self._count(network, 0, 1)

    def is_trusted(self, network: str) -> bool:
        """Whether enough of the peers that `network` named have answered, or few were tried yet."""
        answered, failed = self._counts.get(network, (0, 0))
        return failed < FAILED_MAX or failed <= FAILED_PER_ANSWERED * answered

    def tried_at_once(self, network: str) -> int:
        """How many of the peers that only `network` named a lookup may wait for at a time."""
        return TRIED_AT_ONCE_MAX if self.is_trusted(network) else TRIED_DISTRUSTED_MAX

    def _count(self, network: str, answered: int, failed: int) -> None:
        before = self._counts.pop(network, (0, 0))
        after = before[0] + answered, before[1] + failed
        if sum(after) > REMEMBERED_MAX:
            after = after[0] // 2, after[1] // 2
        self._counts[network] = after
        if len(self._counts) > NETWORKS_MAX:
            self._counts.popitem(last=False)
