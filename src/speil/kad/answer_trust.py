"""What the peers that others name are worth: how many of them answered.

A peer can name anybody: addresses that nobody has, or strangers who shall be dialled. It can't be told from one whose
neighbours have just died, so naming wrongly is no offence. But who named many that did not answer has few of its
peers tried at a time, until some answer. Named for are networks, not identities: those cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from speil.multiformats.peer_id import PeerId

TRIED_AT_ONCE_MAX = 5  # of those that one network alone has named, in one lookup: a quarter of k
TRIED_DISTRUSTED_MAX = 1
FAILED_MAX = 8  # that did not answer, before it matters how many did
FAILED_PER_ANSWERED = 3
REMEMBERED_MAX = 64  # of one network; then both counts are halved, so that it can change
NETWORKS_MAX = 1024


def _itself(peer_id: PeerId) -> str:
    return peer_id.multihash.hex()


class AnswerTrust:
    """The counts of all lookups of one node."""

    def __init__(self, network_of: Callable[[PeerId], str] = _itself) -> None:
        """`network_of` tells whose naming a peer's counts as."""
        self.network_of = network_of
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def answered(self, network: str) -> None:
        """A peer that it named has answered."""
        self._count(network, 1, 0)

    def failed(self, network: str) -> None:
        """A peer that it named has not."""
        self._count(network, 0, 1)

    def is_trusted(self, network: str) -> bool:
        """Whether enough of those that it named have answered, or few were tried yet."""
        answered, failed = self._counts.get(network, (0, 0))
        return failed < FAILED_MAX or failed <= FAILED_PER_ANSWERED * answered

    def tried_at_once(self, network: str) -> int:
        """How many of those that it alone has named may be waited for at a time."""
        return TRIED_AT_ONCE_MAX if self.is_trusted(network) else TRIED_DISTRUSTED_MAX

    def _count(self, network: str, answered: int, failed: int) -> None:
        before = self._counts.pop(network, (0, 0))
        after = before[0] + answered, before[1] + failed
        if sum(after) > REMEMBERED_MAX:
            after = after[0] // 2, after[1] // 2
        self._counts[network] = after
        if len(self._counts) > NETWORKS_MAX:
            self._counts.popitem(last=False)
