"""How often a follower asks, so that a region of any size costs the API server the same.

client-go lets every follower ask every two to four seconds: 0.31·N requests a second. Here the period grows with the
region, so that all followers together ask about six times a second. Failover is no slower for it, because an answer
tells how old the record is (`elector`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from speil.election.config import JITTER_FACTOR, ElectionConfig

if TYPE_CHECKING:
    from random import Random

POLLS_PER_SECOND = 6.0  # of all followers together; a region of 20 asks about as often with client-go
NODES_MAX = 20_000  # four times what Kubernetes supports: a wrong number must not put followers to sleep for a day
# In a region this small the next poll may be that of the only follower: less jitter, so that a lease which was
# released is taken within one and a half retry periods.
SMALL_REGION_NODES = 10
_SMALL_REGION_JITTER = 0.5


def retry_period_seconds(nodes: int, config: ElectionConfig) -> float:
    """The period of a follower in a region of `nodes`; waits are jittered by up to JITTER_FACTOR of it."""
    mean_wait_periods = 1 + JITTER_FACTOR / 2
    nodes = min(nodes, NODES_MAX)
    return max(config.retry_period_seconds, nodes / (mean_wait_periods * POLLS_PER_SECOND))


def poll_wait_seconds(nodes: int, config: ElectionConfig, rng: Random) -> float:
    """How long a follower waits until it asks again."""
    jitter = _SMALL_REGION_JITTER if nodes <= SMALL_REGION_NODES else JITTER_FACTOR
    return retry_period_seconds(nodes, config) * (1 + jitter * rng.random())
