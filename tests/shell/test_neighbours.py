"""Neighbours in the region's networks: nearest first, bounded, nothing outside, all of a small network in turn."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.routing.bootstrap.neighbours import AROUND_MAX, AT_ONCE_MAX, Neighbours
from tests.properties import examples

ID = Identity.generate().peer_id


def local(*hosts: str) -> PeerInfo:
    return PeerInfo(ID, tuple(Multiaddr.of_tcp(host, 5001) for host in hosts))


def hosts(found: list[Multiaddr]) -> list[str]:
    assert all(address.tcp and address.tcp[1] == 5001 and address.peer_id is None for address in found)
    return [address.tcp[0] for address in found if address.tcp]


def test_the_nearest_first_and_all_of_a_small_network_in_turn() -> None:
    neighbours, here = Neighbours((ip_network("10.1.2.0/24"),)), local("10.1.2.11")
    assert hosts(neighbours.next(here))[:4] == ["10.1.2.10", "10.1.2.12", "10.1.2.9", "10.1.2.13"]
    seen = set[str]()
    for _ in range(20):
        seen |= set(hosts(neighbours.next(here)))
    assert seen == {f"10.1.2.{number}" for number in range(1, 255)} - {"10.1.2.11"} | (seen & {"10.1.2.10"})


def test_without_networks_or_outside_of_them_nobody_is_dialled() -> None:
    assert not Neighbours(()).next(local("10.1.2.11"))
    assert not Neighbours((ip_network("10.1.2.0/24"),)).next(local("10.9.9.9"))
    assert not Neighbours((ip_network("10.1.2.0/24"),)).next(local())
    assert not Neighbours((ip_network("10.1.2.11/32"),)).next(local("10.1.2.11"))


def test_a_lease_whose_nodes_are_all_elsewhere() -> None:
    neighbours = Neighbours((ip_network("10.1.0.0/16"),))
    near, far = Multiaddr.of_tcp("10.1.9.9", 5001, ID), Multiaddr.of_tcp("10.2.0.1", 5001, ID)
    assert neighbours.are_elsewhere([far])
    assert not neighbours.are_elsewhere([far, near])
    assert not neighbours.are_elsewhere([])
    assert not Neighbours(()).are_elsewhere([far])


@settings(max_examples=examples(30), deadline=None)
@given(
    st.sampled_from(["10.0.0.0/8", "10.1.2.0/24", "10.1.2.8/29", "fd01::/64", "fd01::8/125"]),
    st.lists(st.integers(0, 1 << 24), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_what_is_dialled_is_bounded_and_inside(network: str, numbers: list[int], rounds: int) -> None:
    net = ip_network(network)
    own = [str(net[number % net.num_addresses]) for number in numbers]
    neighbours = Neighbours((net,))
    for _ in range(rounds):
        found = neighbours.next(local(*own))
        assert len(found) <= AT_ONCE_MAX
        for host in hosts(found):
            assert ip_address(host) in net
            assert min(abs(int(ip_address(host)) - int(ip_address(one))) for one in own) <= AROUND_MAX
