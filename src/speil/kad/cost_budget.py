"""What DHT messages of peers may cost this node, in seconds of its event loop.

The price of a message follows from its size alone, so it is known before the message is parsed. It is paid from the
budgets of the identity, its address and its subnet. A peer whose budget is spent waits until it has filled up again, so
a stream is slowed down to what the budget allows. A peer that would have to wait too long, or has been over its budget
for a long time, is refused. Each subnet has a small free budget; above it, messages are also paid from the budget of
the whole node. So a peer that sends little never waits for others.
"""

from __future__ import annotations

from dataclasses import dataclass

from speil.kad.network_group import address_of, subnet_of
from speil.token_bucket import Bucket, Buckets

MESSAGE_SECONDS = 0.0005  # to read a message, find the closest peers, and answer
BYTE_SECONDS = 0.25e-6  # of a place; 4,096 of them are 8 ms
WAIT_SECONDS_MAX = 5.0  # half of the timeout of a request
OVERDRAWN_SECONDS_MAX = 60.0  # go-libp2p needs this long to announce 10,000 keys one by one
ACCOUNTS_MAX = 4096  # of each kind; the one that was used longest ago has filled up again by then


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget: `share` of each second is added, up to `burst_seconds`. `name` is a metric label."""

    name: str
    share: float
    burst_seconds: float


PEER = Limit("peer", 0.08, 1.0)
ADDRESS = Limit("address", 0.10, 1.5)
SUBNET = Limit("subnet", 0.20, 2.0)
NODE = Limit("node", 0.40, 4.0)
FREE = Limit("free", 0.01, 0.1)  # of a subnet: twenty messages a second; a node of a large region sends two


def price(size_bytes: int) -> float:
    """The most seconds that a message of this size costs."""
    return MESSAGE_SECONDS + size_bytes * BYTE_SECONDS


class RefusedError(Exception):
    """The peer exceeds its share: reset its stream. `limit` is the name of the budget."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the budget of its {limit} is spent")
        self.limit = limit


class CostBudget:
    """The budgets of one node; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._accounts = {
            one.name: Buckets(one.burst_seconds, one.share, ACCOUNTS_MAX) for one in (PEER, ADDRESS, SUBNET, FREE)
        }
        self._node: Bucket | None = None

    def charge(self, peer: str, host: str, size_bytes: int, now: float) -> float:
        """Pay for a message of `size_bytes` from a peer at `host`; seconds to wait before it is processed.

        Raises RefusedError; then nothing is paid.
        """
        cost, subnet = price(size_bytes), subnet_of(host)
        used = [
            (limit, self._accounts[limit.name].of(key, now))
            for limit, key in ((PEER, peer), (ADDRESS, address_of(host)), (SUBNET, subnet))
        ]
        for limit, account in used:
            if _is_overdrawn_for_long(account, now):
                raise RefusedError(limit.name)
        free = self._accounts[FREE.name].of(subnet, now)
        used.append((FREE, free) if free.level(now) >= cost else (NODE, self._of_node(now)))
        wait = 0.0
        for limit, account in used:
            needed = account.wait_seconds(now, cost)
            if needed > WAIT_SECONDS_MAX:
                raise RefusedError(limit.name)
            wait = max(wait, needed)
        for _, account in used:
            account.overdraw(now, cost)
        return wait

    def _of_node(self, now: float) -> Bucket:
        if self._node is None:
            self._node = Bucket(NODE.burst_seconds, NODE.share, now)
        return self._node


def _is_overdrawn_for_long(account: Bucket, now: float) -> bool:
    account.level(now)
    return account.overdrawn_since is not None and now - account.overdrawn_since > OVERDRAWN_SECONDS_MAX
