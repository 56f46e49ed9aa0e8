"""What peers' messages may cost: slowed to a share, refused beyond it, and nobody else waits for it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.kad.cost_budget import (
    ADDRESS,
    FREE,
    MESSAGE_SECONDS,
    NODE,
    OVERDRAWN_SECONDS_MAX,
    PEER,
    SUBNET,
    WAIT_SECONDS_MAX,
    CostBudget,
    RefusedError,
    price,
)
from speil.kad.message import PLACES_MAX, REQUEST_BYTES_MAX
from tests.properties import examples


def flood(
    budget: CostBudget, seconds: float, senders: list[tuple[str, str]], size_bytes: int
) -> tuple[float, Counter[str]]:
    """Each sender sends its next message as soon as the last was looked at; what was spent, and why it was refused."""
    queue = [(0.0, number) for number in range(len(senders))]
    spent, refused = 0.0, Counter[str]()
    while queue and queue[0][0] < seconds:
        now, number = heapq.heappop(queue)
        peer, host = senders[number]
        try:
            wait = budget.charge(peer, host, size_bytes, now)
        except RefusedError as error:
            refused[error.limit] += 1
            heapq.heappush(queue, (now + 0.05, number))  # it opens another stream
            continue
        if now + wait < seconds:
            spent += price(size_bytes)
        heapq.heappush(queue, (now + wait + 1e-6, number))
    return spent, refused


def refused_after(budget: CostBudget, sender: Callable[[int], tuple[str, str]], size_bytes: int = 0) -> tuple[str, int]:
    """Which budget was spent first, and after how many messages in one moment."""
    for number in range(100_000):
        try:
            budget.charge(*sender(number), size_bytes, 0)
        except RefusedError as error:
            return error.limit, number
    pytest.fail("nothing was ever refused")


@given(
    st.integers(1, 200),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([0, 100, 10_000, REQUEST_BYTES_MAX]),
)
@settings(max_examples=examples(10), deadline=None)
def test_whatever_a_subnet_sends_it_gets_its_share(streams: int, identities: int, addresses: int, size: int) -> None:
    senders = [(f"p{number % identities}", f"10.66.0.{number % addresses}") for number in range(streams)]
    spent, _ = flood(CostBudget(), 30, senders, size)
    assert spent <= SUBNET.burst_seconds + 30 * SUBNET.share + price(size)
    by_address = min(addresses, identities * addresses) * (ADDRESS.burst_seconds + 30 * ADDRESS.share)
    assert spent <= by_address + addresses * price(size)


def test_many_subnets_together_get_the_nodes_share() -> None:
    senders = [(f"p{number}", f"10.66.{number}.1") for number in range(50)]
    spent, refused = flood(CostBudget(), 30, senders, 1_000)
    little = 50 * (FREE.burst_seconds + 30 * FREE.share)
    assert spent <= little + NODE.burst_seconds + 30 * NODE.share
    assert set(refused) <= {"node"}


def test_who_asks_little_does_not_wait_for_others() -> None:
    budget = CostBudget()
    flood(budget, 10, [(f"p{number}", f"10.66.{number % 20}.{number}") for number in range(400)], 10_000)
    for number in range(100):
        assert budget.charge("honest", "10.1.0.7", 200, 10 + number / 10) == 0


def test_identities_of_one_address_share_its_budget_and_addresses_their_subnets() -> None:
    budget = CostBudget()
    limit, count = refused_after(budget, lambda number: (f"p{number}", "10.66.0.1"))
    assert limit == "address"
    assert count < (ADDRESS.burst_seconds + WAIT_SECONDS_MAX * ADDRESS.share) / MESSAGE_SECONDS + 1
    limit, _ = refused_after(budget, lambda number: (f"q{number}", f"10.66.0.{number % 200 + 2}"))
    assert limit == "subnet"
    assert budget.charge("honest", "10.66.1.1", 0, 0) == 0


def test_one_stream_is_slowed_and_never_refused_while_it_lasts_no_longer_than_a_store_takes() -> None:
    budget, now = CostBudget(), 0.0
    for _ in range(10_000):  # a node of Spegel with as many keys tells them one by one
        now += budget.charge("p", "10.1.0.7", 120, now)
    assert 10 < now < OVERDRAWN_SECONDS_MAX


def test_who_goes_on_beyond_its_budget_is_refused_and_after_a_rest_heard_again() -> None:
    budget, now = CostBudget(), 0.0
    with suppress(RefusedError):
        while now < 10 * OVERDRAWN_SECONDS_MAX:
            now += budget.charge("p", "10.66.0.1", 0, now) + 1e-6
    assert OVERDRAWN_SECONDS_MAX <= now < OVERDRAWN_SECONDS_MAX + 2
    with pytest.raises(RefusedError):
        budget.charge("p", "10.66.0.1", 0, now + 1)
    rest = PEER.burst_seconds / PEER.share
    assert budget.charge("p", "10.66.0.1", 0, now + rest) == 0


def test_a_refusal_costs_nothing() -> None:
    budget = CostBudget()
    refused_after(budget, lambda _: ("p", "10.66.0.1"), 1_000)
    for _ in range(1_000):
        with pytest.raises(RefusedError):
            budget.charge("p", "10.66.0.1", 1_000, 0)
    assert 0 < budget.charge("p", "10.66.0.1", 1_000, WAIT_SECONDS_MAX) <= WAIT_SECONDS_MAX


def test_the_largest_message_costs_a_part_of_what_anybody_has_saved_up() -> None:
    assert price(REQUEST_BYTES_MAX) < PEER.burst_seconds / 20
    assert price(8 * PLACES_MAX) < 0.02


def test_forgotten_accounts_are_full_ones() -> None:
    budget = CostBudget()
    for number in range(20_000):
        budget.charge(f"p{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0, number / 100)
    assert all(len(accounts) <= 4096 for accounts in budget._accounts.values())
