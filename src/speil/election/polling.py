"""How often a follower looks at the Lease, so that a region of any size costs the API server the same.

client-go lets every follower read every two to four seconds: 0.31·N requests a second. Here the period grows with the
region, so that all followers together read about six times a second. Failover is no slower for it, because a read
returns how old the record is (`watch`).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from speil.election.config import JITTER_FACTOR, ElectionConfig

if TYPE_CHECKING:
    from random import Random

POLLS_PER_SECOND = 6.0  # of all followers together; a region of 20 reads about as often with client-go
NODES_MAX = 20_000  # four times what Kubernetes supports: a wrong number must not put followers to sleep for a day
# In a region this small the next poll may be that of the only follower: less jitter, so that a lease which was
# released is taken within one and a half retry periods.
SMALL_REGION_NODES = 10
_SMALL_REGION_JITTER = 0.5
_WAIT_JITTER = 0.2


def retry_period_seconds(nodes: int, config: ElectionConfig) -> float:
    """The period of a follower in a region of `nodes`; waits are jittered by up to JITTER_FACTOR of it."""
    mean_wait_periods = 1 + JITTER_FACTOR / 2
    nodes = min(nodes, NODES_MAX)
    return max(config.retry_period_seconds, nodes / (mean_wait_periods * POLLS_PER_SECOND))


def poll_wait_seconds(nodes: int, config: ElectionConfig, rng: Random) -> float:
    """How long a follower waits until it reads again."""
    jitter = _SMALL_REGION_JITTER if nodes <= SMALL_REGION_NODES else JITTER_FACTOR
    return retry_period_seconds(nodes, config) * (1 + jitter * rng.random())


class _Look(Enum):
    NONE = "none"  # nothing planned yet
    REGULAR = "regular"
    CONFIRMING = "confirming"


class PollSchedule:
    """Plans one follower's reads of the Lease. Results are seconds from now."""

    def __init__(self, config: ElectionConfig, rng: Random) -> None:
        self._config, self._rng = config, rng
        self._last = _Look.NONE

    def poll(self, nodes: int) -> float:
        """Until a usual read, in a region of `nodes`."""
        return poll_wait_seconds(nodes, self._config, self._rng)

    def jittered(self, seconds: float) -> float:
        """`seconds`, and up to a fifth more."""
        return seconds * (1 + _WAIT_JITTER * self._rng.random())

    def soon(self) -> float:
        """Until the next read of a record that may have lost its leader."""
        return self.jittered(self._config.retry_period_seconds / 2)

    def after_a_fresh_record(self, nodes: int, *, has_age: bool) -> float:
        """Until the next read of a record that a leader renews; `has_age`: its age is known."""
        wait = self.poll(nodes)
        if self._last is _Look.NONE:
            # nodes that a roll-out started together part ways with their first wait
            wait = max(wait * self._rng.random(), self._config.retry_period_seconds)
        # without an age, a second read shows whether the record changes
        confirms = not has_age and self._last is not _Look.CONFIRMING
        self._last = _Look.CONFIRMING if confirms else _Look.REGULAR
        return min(wait, self._config.missed_renewals_seconds * 1.25) if confirms else wait
