"""Misconfigured on purpose: what an operator can get wrong, each mistake by itself, in regions without secrets."""

from __future__ import annotations

import asyncio
import http.client
from contextlib import suppress

import pytest

from speil.border.http import MIRRORED_HEADER
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.interop.peers import PeerProgramError, peer_program
from tests.requirements import tool_path
from tests.system.isolation.checks import (
    REGISTRY_PORT,
    Pushed,
    assert_isolated,
    assert_only_refusals,
    found,
    lease,
    quiet_mark,
    registry_packets,
)
from tests.system.lab.lans import REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab, RegionNode

pytestmark = pytest.mark.system


async def test_a_region_beside_the_names_of_another_is_refused_and_touches_nothing(lab: RegionLab) -> None:
    """Such a node campaigned on the other region's Lease once, and won it."""
    await lab.configure()
    before = (await lease(lab, "regiona"))["spec"]
    mark, wrong = lab.lans.capture.mark(), lab.regions["regionb"][2]
    wrong.speil.stop()
    asked = len(lab.cluster.lease_audit())
    wrong.start_with(["--region=regionb", *lab.copied(wrong)])
    await eventually(lambda: not wrong.speil.running, timeout_seconds=30, what="it refuses to start")
    assert wrong.speil.stop() == 2, "the exit code of a wrong configuration"
    for part in ("--region is regionb", "read as region regiona", "set --region regiona", "end in -regionb"):
        assert part in wrong.last_words
    assert not [one for one in lab.cluster.lease_audit()[asked:] if one.source == wrong.address]
    pushed = Pushed(lab, "regionb")
    await wrong.pull(f"{pushed.name}:1")
    after = (await lease(lab, "regiona"))["spec"]
    assert (after["holderIdentity"], after["leaseTransitions"]) == (
        before["holderIdentity"],
        before["leaseTransitions"],
    )
    await lab.configure()
    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)


async def test_a_region_that_was_given_the_others_address(lab: RegionLab) -> None:
    mark, nodes, target = lab.lans.capture.mark(), lab.regions["regionb"], lab.regions["regiona"][0]
    flags = ["--bootstrap-kind=static", f"--static-bootstrap-peers={target.multiaddr}", *lab.documented("regionb")[1:]]
    await lab.configure(dict.fromkeys(nodes, flags), fresh=nodes, alone=nodes)
    for node in nodes:
        await node.keeps_out(Layer.IDENTIFY)
        assert node.said(
            "kept out", layer="identify", who=target.peer_id, why="regiona", what_to_do="bootstrap address"
        )
        await target.says("kept out", layer="identify", who=node.peer_id, why="regionb")
    assert target.rejected(Layer.IDENTIFY) >= len(nodes)
    await assert_isolated(lab, mark, alone=nodes)
    assert lab.lans.crossings(mark), "they knocked, and that is seen"


async def test_a_node_whose_label_is_wrong(lab: RegionLab) -> None:
    """Its names are right: it is kept out, logs the reason, and only its own sharing is lost."""
    first, second, wrong = lab.regions["regionb"]
    await lab.configure()
    mark = lab.lans.capture.mark()  # before it, nodes may have connected as another test configured them
    before = {node: node.rejected(Layer.IDENTIFY) for node in (first, second)}
    await lab.configure({wrong: [*lab.documented("regionb"), "--topology-region=regiona"]}, alone=[wrong])
    assert wrong.said("the node's label topology.kubernetes.io/region is regiona; the names of the Lease decide")
    await wrong.says("belongs to another region", detail="regionb", what_to_do="set --region on all of them")
    for node in (first, second):
        await node.keeps_out(Layer.IDENTIFY, before=before[node])
        assert node.said("kept out", who=wrong.peer_id, why="regiona", what_to_do="set --region regionb on all")
    only_there = Pushed(lab, "regionb")
    await wrong.pull(f"{only_there.name}:1")
    await eventually(lambda: wrong.metric("speil_provided_keys") > 0, what="it announces")
    await assert_isolated(lab, mark, alone=[wrong])
    for node in (*lab.regions["regiona"], first, second):
        assert await found(lab, node, only_there.targets) == 0
    assert not lab.lans.crossings(mark)

    # said outright, the region counts and the label does not
    outright = ["--region=regionb", *lab.documented("regionb"), "--topology-region=regiona"]
    await lab.configure({wrong: outright})
    assert wrong.said("--region decides: regionb")
    await assert_isolated(lab, mark)


@pytest.mark.interop
@pytest.mark.requires("interop-peer")
async def test_nodes_without_a_region(lab: RegionLab) -> None:
    """A node as Spegel has it (go-libp2p), and a speil without a region; both have addresses of both regions."""
    mark = lab.lans.capture.mark()
    targets, lost = [lab.regions[region][0] for region in REGIONS], lab.regions["regionb"][2]
    seeds = ",".join(target.multiaddr for target in targets)
    flags = ["--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
    await lab.configure({lost: flags}, fresh=[lost], alone=[lost])
    for target in targets:
        await target.says("kept out", layer="identify", who=lost.peer_id)
        await lost.says("kept out", layer="identify", who=target.peer_id, why=target.region)
    held = Pushed(lab, "both")
    for target in targets:
        await target.pull(f"{held.name}:1")

    stranger = lab.lans.stranger
    program = str(tool_path("interop-peer"))
    async with peer_program(
        "ip", "netns", "exec", stranger.name, program, f"/ip4/{stranger.address}/tcp/5001"
    ) as spegel:
        key = f"sha256:{'ab' * 32}"
        for target in targets:

            async def knocks(target: RegionNode = target) -> bool:
                # the dial itself may or may not be through before it is thrown out
                with suppress(PeerProgramError):
                    await spegel.ask("connect", addr=f"{target.multiaddr}/p2p/{target.peer_id}")
                await asyncio.sleep(0.5)
                return target.said("kept out", layer="identify", who=spegel.id, why="no region")

            await eventually(knocks, timeout_seconds=60, what=f"{target} keeps a Spegel out")
        with suppress(PeerProgramError):
            await spegel.ask("provide", key=key)
        assert (await spegel.ask("find_providers", key=str(held.image.index.digest)))["providers"] == []
        for node in lab.nodes:
            assert spegel.id not in node.peers
            assert await found(lab, node, [f"/v2/x/blobs/{key}?ns={REGISTRY}"]) == 0
        before = {target: target.rejected(Layer.HTTP) for target in targets}
        for target in targets:
            with inside(stranger):
                for path in held.targets:
                    assert ask(target.address, path, {MIRRORED_HEADER: "true"}) == (404, b"")
            assert target.rejected(Layer.HTTP) == before[target] + len(held.targets)
            assert target.said("kept out", layer="http", who=stranger.address, what_to_do="correct its --region")
    packets = registry_packets(lab, mark)
    await assert_isolated(lab, await quiet_mark(lab), alone=[lost])
    assert packets, "its requests to the other region were seen"
    assert_only_refusals(packets)


def ask(address: str, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """A request from wherever this thread is: status and body."""
    connection = http.client.HTTPConnection(address, REGISTRY_PORT, timeout=10)
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
