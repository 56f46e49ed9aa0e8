"""What peers' messages may cost this node: seconds of its one event loop.

Each message has a price, told by its size alone, so it is known before the message is looked at. It is paid from the
budgets of the identity, its address and its subnet. Who has spent a budget waits until it has filled up again, so
that a stream is slowed to what the budget allows; who would have to wait too long, with many streams at once or for a
long while, is refused. What a subnet asks beyond a little is paid from the node's budget for all of them too; who asks
little never waits for others.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from speil.kad.network_group import address_of, subnet_of

MESSAGE_SECONDS = 0.0005  # to read a message, look for the closest peers, and answer
BYTE_SECONDS = 0.25e-6  # of a place; 4,096 of them are 8 ms
WAIT_SECONDS_MAX = 5.0  # half of the time after which askers give up
OVERDRAWN_SECONDS_MAX = 60.0  # go-libp2p tells a store of 10,000 keys one by one: that takes as long
ACCOUNTS_MAX = 4096  # of each kind; the one that was used longest ago is full again by then


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget: `share` of each second, and `burst_seconds` saved up."""

    name: str
    share: float
    burst_seconds: float


PEER = Limit("peer", 0.08, 1.0)
ADDRESS = Limit("address", 0.10, 1.5)
SUBNET = Limit("subnet", 0.20, 2.0)
NODE = Limit("node", 0.40, 4.0)
LITTLE = Limit("little", 0.01, 0.1)  # of a subnet: twenty messages a second; a node of a large region sends two


def price(size_bytes: int) -> float:
    """Seconds that a message of this size costs at most."""
    return MESSAGE_SECONDS + size_bytes * BYTE_SECONDS


class RefusedError(Exception):
    """The peer asks more than its share: reset its stream. `limit` is the name of the budget."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the budget of its {limit} is spent")
        self.limit = limit


@dataclass(slots=True)
class _Account:
    left: float
    at: float
    overdrawn_since: float | None = None

    def fill(self, limit: Limit, now: float) -> None:
        self.left = min(limit.burst_seconds, self.left + (now - self.at) * limit.share)
        self.at = now
        if self.left >= limit.burst_seconds / 2:
            self.overdrawn_since = None

    def wait(self, limit: Limit, cost: float) -> float:
        return max(0.0, (cost - self.left) / limit.share)

    def pay(self, cost: float, now: float) -> None:
        self.left -= cost
        if self.left < 0 and self.overdrawn_since is None:
            self.overdrawn_since = now

    def is_overdrawn_for_long(self, now: float) -> bool:
        return self.overdrawn_since is not None and now - self.overdrawn_since > OVERDRAWN_SECONDS_MAX


class CostBudget:
    """The budgets of one node; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._accounts: dict[str, OrderedDict[str, _Account]] = {
            one.name: OrderedDict() for one in (PEER, ADDRESS, SUBNET, LITTLE)
        }
        self._node: _Account | None = None

    def charge(self, peer: str, host: str, size_bytes: int, now: float) -> float:
        """Pay for a message of `size_bytes` from a peer at `host`; seconds to wait before it is looked at.

        Raises RefusedError, and then nothing is paid.
        """
        cost, subnet = price(size_bytes), subnet_of(host)
        used = [
            (limit, self._account(limit, key, now))
            for limit, key in ((PEER, peer), (ADDRESS, address_of(host)), (SUBNET, subnet))
        ]
        for limit, account in used:
            if account.is_overdrawn_for_long(now):
                raise RefusedError(limit.name)
        little = self._account(LITTLE, subnet, now)
        used.append((LITTLE, little) if little.left >= cost else (NODE, self._of_node(now)))
        wait = 0.0
        for limit, account in used:
            needed = account.wait(limit, cost)
            if needed > WAIT_SECONDS_MAX:
                raise RefusedError(limit.name)
            wait = max(wait, needed)
        for _, account in used:
            account.pay(cost, now)
        return wait

    def _account(self, limit: Limit, key: str, now: float) -> _Account:
        accounts = self._accounts[limit.name]
        account = accounts.get(key)
        if account is None:
            account = accounts[key] = _Account(limit.burst_seconds, now)
            if len(accounts) > ACCOUNTS_MAX:
                accounts.popitem(last=False)
        accounts.move_to_end(key)
        account.fill(limit, now)
        return account

    def _of_node(self, now: float) -> _Account:
        if self._node is None:
            self._node = _Account(NODE.burst_seconds, now)
        self._node.fill(NODE, now)
        return self._node
