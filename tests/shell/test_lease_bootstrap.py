"""First peers from a Lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from random import Random

import pytest

from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord
from speil.election.settings import ElectionSettings
from speil.kad.mesh_size import estimate_mesh_size
from speil.lease.base import LeaseLock
from speil.lease.memory import MemoryLease
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.region.identity import RegionIdentity, identify
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.build import build_bootstrapper
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.settings import RouterSettings
from speil.setting import SettingError
from speil.testing.eventually import eventually
from tests.shell.lease_region import FAST, FaultyLease


def peer(number: int) -> PeerInfo:
    """A node."""
    return PeerInfo(peer_id(number), (Multiaddr.of_tcp(f"10.0.{number // 250}.{number % 250 + 1}", 5001),))


def peer_id(number: int) -> PeerId:
    """An id that is spread like others."""
    return PeerId(bytes((0x12, 32)) + Random(number).randbytes(32))


@asynccontextmanager
async def running(
    lock: LeaseLock,
    number: int,
    peers: list[PeerInfo] | None = None,
    *,
    label: str = "",
    networks: tuple[str, ...] = (),
) -> AsyncIterator[LeaseBootstrapper]:
    """A node's bootstrapper that campaigns."""
    subnets = tuple(map(ip_network, networks))
    bootstrapper = LeaseBootstrapper("file", lock, FAST, Owner("r", label), Metrics(), Random(number), networks=subnets)
    bootstrapper.attach(lambda: peers or [])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bootstrapper.run(lambda: peer(number)))
        yield bootstrapper
        task.cancel()


async def test_the_first_is_alone_and_the_next_is_sent_to_it() -> None:
    lock = MemoryLease()
    async with running(lock, 1) as first:
        assert await first.find(peer(1)) == []
        await eventually(lambda: first.election.leading)
        assert first.election.lease is not None
        assert first.election.lease.record.holder_identity == f"/ip4/10.0.0.2/tcp/5001/p2p/{peer_id(1)}"
        async with running(lock, 2) as second:
            assert await second.find(peer(2)) == [peer(1).addresses[0].with_peer_id(peer_id(1))]


async def test_a_newcomer_survives_a_dead_leader() -> None:
    lock = MemoryLease()
    others = [peer(number) for number in range(3, 30)]
    async with running(lock, 1, others) as leader:
        await eventually(lambda: leader.election.leading)
    lease = await lock.get()
    assert lease is not None
    assert lease.record.nodes == pytest.approx(28, rel=0.6)
    dead = LeaderElectionRecord("/ip4/10.9.9.9/tcp/5001", 60, peers=lease.record.peers)
    await lock.put(dead, lease)
    async with running(lock, 2) as newcomer:
        found = await newcomer.find(peer(2))
    assert str(found[0]) == "/ip4/10.9.9.9/tcp/5001"
    assert len(found) == 9
    assert set(found[1:]) <= {other.addresses[0].with_peer_id(other.peer_id) for other in others}


async def test_garbage_in_the_lease_is_passed_over() -> None:
    lock = MemoryLease()
    await lock.put(LeaderElectionRecord("me!", 60, peers=("/x", "/ip4/10.0.0.9/udp/1", "/ip4/10.0.0.9/tcp/5001")), None)
    async with running(lock, 2) as newcomer:
        assert await newcomer.find(peer(2)) == [Multiaddr.of_tcp("10.0.0.9", 5001)]


async def test_a_store_that_fails_is_an_error_at_once_and_what_was_seen_stays_good() -> None:
    faulty = FaultyLease(MemoryLease())
    faulty.failing = True
    async with running(faulty, 1) as node:
        with pytest.raises(BootstrapError, match="connection refused"):
            await node.find(peer(1))
        faulty.failing = False
        await eventually(lambda: node.election.leading)
        faulty.failing = True
        await eventually(lambda: node.election.failure)
        assert await node.find(peer(9)) == [peer(1).addresses[0].with_peer_id(peer_id(1))]


async def test_another_regions_lease_gives_no_peers() -> None:
    lock = MemoryLease()
    await lock.put(LeaderElectionRecord("/ip4/10.0.0.9/tcp/5001", 60, region="west"), None)
    async with running(lock, 1) as node:
        with pytest.raises(BootstrapError, match="'west'"):
            await node.find(peer(1))


async def test_a_lease_of_nodes_with_another_label_gives_no_peers_and_names_both_labels() -> None:
    lock = MemoryLease()
    await lock.put(LeaderElectionRecord("/ip4/10.0.0.9/tcp/5001", 60, region="r", label="us"), None)
    async with running(lock, 1, label="eu") as node, running(lock, 2) as plain, running(lock, 3, label="us") as fellow:
        with pytest.raises(BootstrapError, match=r"'us'.*'eu'") as raised:
            await node.find(peer(1))
        assert not raised.value.addresses, "nobody is known, and no networks"
        for other, number in ((plain, 2), (fellow, 3)):
            assert await other.find(peer(number)) == [Multiaddr.of_tcp("10.0.0.9", 5001)]


async def test_a_lease_that_became_anothers_leaves_the_peers_that_it_named() -> None:
    lock = MemoryLease()
    await lock.put(
        LeaderElectionRecord("/ip4/10.0.0.9/tcp/5001", 60, region="r", peers=("/ip4/10.0.0.8/tcp/5001",)), None
    )
    async with running(lock, 1) as node:
        assert len(await node.find(peer(1))) == 2
        lease = await lock.get()
        await lock.put(LeaderElectionRecord("/ip4/10.9.9.9/tcp/5001", 60, region="west"), lease)
        await eventually(lambda: node.election.foreign)
        with pytest.raises(BootstrapError) as raised:
            await node.find(peer(1))
    assert [str(one) for one in raised.value.addresses] == ["/ip4/10.0.0.9/tcp/5001", "/ip4/10.0.0.8/tcp/5001"]


async def test_the_regions_networks_are_searched_where_the_lease_is_of_no_help() -> None:
    lock = MemoryLease()
    await lock.put(LeaderElectionRecord("/ip4/10.9.9.9/tcp/5001", 60, region="west"), None)
    async with running(lock, 1, networks=("10.0.0.0/24",)) as node:
        with pytest.raises(BootstrapError) as raised:
            await node.find(peer(1))
    assert str(raised.value.addresses[0]) == "/ip4/10.0.0.1/tcp/5001"
    denied = FaultyLease(MemoryLease())
    denied.denied = True
    async with running(denied, 1, networks=("10.0.0.0/24",)) as node:
        with pytest.raises(BootstrapError, match="a Role is missing") as raised:
            await node.find(peer(1))
    assert raised.value.addresses
    elsewhere = MemoryLease()
    await elsewhere.put(LeaderElectionRecord("/ip4/10.9.9.9/tcp/5001", 60, region="r"), None)
    async with running(elsewhere, 1, networks=("10.0.0.0/24",)) as node:
        leader, *neighbours = await node.find(peer(1))
    assert str(leader) == "/ip4/10.9.9.9/tcp/5001"
    assert str(neighbours[0]) == "/ip4/10.0.0.1/tcp/5001"


@pytest.mark.parametrize("size", [1, 2, 21, 100, 1_000])
def test_the_size_of_the_mesh_is_told_from_whom_one_knows(size: int) -> None:
    ids = [peer_id(number) for number in range(size)]
    estimates = [estimate_mesh_size(local, (one for one in ids if one != local)) for local in ids[:40]]
    if size <= 21:
        assert set(estimates) == {size}
    else:
        assert sum(estimates) / len(estimates) == pytest.approx(size, rel=0.25)


def built(kind: str, settings: ElectionSettings, identity: RegionIdentity) -> LeaseBootstrapper:
    made = build_bootstrapper(RouterSettings(bootstrap_kind=kind), settings, identity, (), Metrics(), Random(1))
    assert isinstance(made, LeaseBootstrapper)
    return made


async def test_the_settings_make_a_file_lease_that_works(tmp_path: Path) -> None:
    settings = ElectionSettings(lease_file=str(tmp_path / "lease"))
    node = built("file", settings, identify(region="r"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.run(lambda: peer(1)))
        await eventually(lambda: node.election.leading)
        assert node.election.lease is not None
        assert node.election.lease.record.region == "r"
        assert node.election.lease.record.lease_duration_seconds == 10
        task.cancel()
    with pytest.raises(SettingError, match="--lease-file"):
        built("file", ElectionSettings(), identify())


async def test_a_kubeconfig_that_is_missing_is_said_once_and_asked_about_slowly(tmp_path: Path) -> None:
    settings = ElectionSettings(kubeconfig_path=str(tmp_path / "missing"))
    node = built("kubernetes", settings, identify())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.run(lambda: peer(1)))
        with pytest.raises(BootstrapError, match="missing can't be read"):
            await node.find(peer(1))
        task.cancel()
