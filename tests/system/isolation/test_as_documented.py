"""The lab can see what crosses; configured as documented, nothing does; the elections keep to their own Leases."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.system.isolation.checks import (
    Pushed,
    assert_isolated,
    holder_of,
    leader_of,
    lease,
    pull_twice,
    quiet_mark,
    roll_out,
    service_account,
    verify,
)
from tests.system.lab.lans import DELAY_SECONDS, REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.regions import RegionLab
from tests.system.test_pulls import wanted

pytestmark = pytest.mark.system


async def test_a_packet_between_regions_takes_its_time_and_is_seen(lab: RegionLab) -> None:
    """Without this, no test here could fail for a packet that is there."""
    (here, near, _), (far, *_) = lab.lans.nodes("regiona"), lab.lans.nodes("regionb")
    for target in (near, far):
        with inside(target):
            server, listener = socket.create_server((target.address, 7000)), socket.socket(type=socket.SOCK_DGRAM)
            listener.bind((target.address, 7000))
        mark, started = lab.lans.capture.mark(), time.monotonic()
        with inside(here), server, listener, socket.create_connection((target.address, 7000), timeout=10) as connection:
            took = time.monotonic() - started
            connection.sendall(b"a blob's byte")
            connection.shutdown(socket.SHUT_WR)
            with server.accept()[0] as accepted:
                assert accepted.recv(100) == b"a blob's byte"
                assert accepted.recv(100) == b""
            assert connection.recv(100) == b""
            with socket.socket(type=socket.SOCK_DGRAM) as last:
                last.sendto(b"the last", (target.address, 7000))
            assert listener.recv(100) == b"the last"
        seen = [
            packet.payload
            for packet in lab.lans.crossings(mark)
            if (packet.source, packet.target, packet.target_port) == (here.address, target.address, 7000)
        ]
        if target is far:
            assert took >= 2 * DELAY_SECONDS, "there and back"
            assert b"a blob's byte" in seen
            assert seen[-1] == b"the last", "and nothing is on its way any more"
        else:
            assert not lab.lans.crossings(mark)


async def test_as_documented_not_one_packet_passes_between_the_regions(lab: RegionLab) -> None:
    await lab.configure(stopped=lab.nodes)  # counters of other tests are none of ours
    mark = lab.lans.capture.mark()
    await lab.configure()
    for region in REGIONS:
        for node in lab.regions[region]:
            first = node.lines[0]
            assert first["msg"] == "this node's region"
            assert (first["region"], first["region_from"]) == (region, "lease names")

    images = {region: [Pushed(lab, region) for _ in range(3)] for region in REGIONS}
    shared = Pushed(lab, "both", (400_000, 300))
    lab.registry.forget()
    for region in REGIONS:
        for pushed in (*images[region], shared):
            await roll_out(lab, region, pushed)
    gets = lab.registry.gets()
    for region in REGIONS:
        for pushed in images[region]:
            assert {gets[digest] for digest in wanted(pushed.image)} == {1}
    assert {gets[digest] for digest in wanted(shared.image)} == {2}, "once a region"

    verdict, _ = await asyncio.gather(verify(lab), assert_isolated(lab, mark))
    assert verdict.exit_code == 0, verdict
    assert {one["level"] for one in verdict.findings} == {"ok"}, verdict
    assert not lab.lans.crossings(mark)
    seen = {(packet.source, packet.target) for packet in lab.lans.capture.since(mark)}
    for node in lab.nodes:
        assert (lab.lans.api_server.address, node.address) in seen, "the router sees who asks the API server"
        for layer in Layer:
            assert node.rejected(layer) == 0


async def test_when_both_regions_pull_at_once_each_takes_one_copy_and_nothing_crosses(lab: RegionLab) -> None:
    await lab.configure()
    await quiet_mark(lab)
    mark = lab.lans.capture.mark()
    shared = Pushed(lab, "both", (900_000, 900_000, 300_000, 300))
    lab.registry.forget()
    await asyncio.gather(*(node.pull(f"{shared.name}:1") for node in lab.nodes))
    gets = lab.registry.gets()
    blobs = {str(digest) for digest in shared.image.blobs if shared.image.kind(digest) == "blobs"}
    assert {digest: gets[digest] for digest in blobs & wanted(shared.image)} == dict.fromkeys(
        blobs & wanted(shared.image), len(REGIONS)
    ), "once a region"
    assert not lab.lans.crossings(mark)
    for region in REGIONS:
        shared_bytes = sum(node.metric("speil_shared_bytes_total", role="follower") for node in lab.regions[region])
        assert shared_bytes > 0, f"nodes of {region} follow each other"


async def test_the_elections_never_touch_each_others_lease(lab: RegionLab) -> None:
    await lab.configure()
    before = len(lab.cluster.lease_audit())
    lease_of_b = (await lease(lab, "regionb"))["spec"]
    leader = await leader_of(lab, "regiona")
    survivors = [node for node in lab.regions["regiona"] if node is not leader]
    pushed = Pushed(lab, "regiona")
    leader.speil.kill()

    async def followed() -> bool:
        return (await holder_of(lab, "regiona")) in [node.multiaddr for node in survivors]

    await asyncio.gather(
        pull_twice(lab, pushed, survivors[0], survivors[1], meshed=True),
        eventually(followed, timeout_seconds=40, what="another node of regiona leads"),
    )
    await lab.configure()
    for region in REGIONS:
        user, name, namespace = service_account(region), f"spegel-leader-election-{region}", f"spegel-{region}"
        requests = [one for one in lab.cluster.lease_audit()[before:] if one.user == user]
        assert {(one.namespace, one.name) for one in requests} == {(namespace, name)}
        assert {one.source for one in requests} == {node.address for node in lab.regions[region]}
        assert {one.verb for one in requests} >= {"get", "update"}
        assert {one.code for one in requests} <= {200, 201, 404, 409, 422}
        audit = lab.cluster.lease_audit()[before:]
        writers = {one.user for one in audit if one.namespace == namespace and one.verb != "get"}
        assert writers == {user}, "nobody else writes there"
    now = (await lease(lab, "regionb"))["spec"]
    assert now["renewTime"] > lease_of_b["renewTime"]
    for what in ("holderIdentity", "leaseTransitions", "acquireTime"):
        assert now[what] == lease_of_b[what], "regionb did not notice"
    assert (await lease(lab, "regiona"))["spec"]["leaseTransitions"] > 0
