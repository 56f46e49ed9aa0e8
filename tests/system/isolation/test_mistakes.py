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
    holder_of,
    leader_of,
    lease,
    registry_packets,
    verify,
)
from tests.system.lab.lans import REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab

pytestmark = pytest.mark.system


async def test_two_regions_that_were_given_one_lease(lab: RegionLab) -> None:
    """One node of regionb has its own ServiceAccount, which may not; the others that of regiona, which may."""
    await lab.configure()
    before = await lease(lab, "regiona")
    mark, nodes = lab.lans.capture.mark(), lab.regions["regionb"]
    wrong = ["--region=regionb", *lab.documented("regiona")[:3]]
    await lab.configure(
        {
            node: [*wrong, f"--kubeconfig-path={lab.kubeconfigs['regionb' if node is nodes[0] else 'regiona']}"]
            for node in nodes
        }
    )
    await nodes[0].says("can't be asked", error="not allowed to get the Lease spegel-leader-election-regiona")
    for node in nodes[1:]:
        await node.keeps_out(Layer.LEASE)
        assert node.said("belongs to another region", detail="regiona", what_to_do="--leader-election-namespace")
    for node in nodes:
        assert node.said("--region is regionb, and the names of the Lease")
    verdict, _ = await asyncio.gather(verify(lab), assert_isolated(lab, mark))
    assert verdict.exit_code == 1
    assert verdict.says("fail", "spegel-regiona/spegel-leader-election-regiona", "is asked by nodes of regionb too"), (
        verdict
    )
    assert not lab.lans.crossings(mark), "they go on with the peers that they knew"
    after = await lease(lab, "regiona")
    assert after["spec"]["holderIdentity"] == before["spec"]["holderIdentity"]
    assert after["metadata"]["annotations"]["speil.dev/region"] == "regiona"

    leader = await leader_of(lab, "regiona")
    assert leader.speil.stop() == 0, "it gives the Lease back, free for whoever takes it first"
    theirs = [node.multiaddr for node in lab.regions["regiona"] if node is not leader]

    async def followed() -> bool:
        return await holder_of(lab, "regiona") in theirs

    await eventually(followed, timeout_seconds=30, what="another node of regiona leads")
    strangers = {node.address for node in nodes}
    writes = [one for one in lab.cluster.lease_audit() if one.source in strangers and one.verb != "get"]
    assert {one.name for one in writes} <= {"spegel-leader-election-regionb"}, "none of regionb's nodes took it"


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


async def test_a_node_whose_label_or_region_is_wrong(lab: RegionLab) -> None:
    first, second, wrong = lab.regions["regionb"]
    await lab.configure({wrong: [*lab.documented("regionb"), "--topology-region=regiona"]})
    assert wrong.said("the node's label topology.kubernetes.io/region is regiona; the names of the Lease decide")
    mark = lab.lans.capture.mark()
    await assert_isolated(lab, mark)

    before = {node: node.rejected(Layer.IDENTIFY) for node in (first, second)}
    await lab.configure({wrong: [*lab.documented("regionb"), "--region=regiona"]}, alone=[wrong])
    assert wrong.said("--region is regiona, and the names of the Lease")
    await wrong.says("belongs to another region", detail="regionb", what_to_do="give each region")
    for node in (first, second):
        await node.keeps_out(Layer.IDENTIFY, before=before[node])
        assert node.said("kept out", who=wrong.peer_id, why="regiona", what_to_do="correct its --region")
    only_there = Pushed(lab, "regionb")
    await wrong.pull(f"{only_there.name}:1")
    await eventually(lambda: wrong.metric("speil_provided_keys") > 0, what="it announces")
    await assert_isolated(lab, mark, alone=[wrong])
    for node in (*lab.regions["regiona"], first, second):
        assert await found(lab, node, only_there.targets) == 0
    assert not lab.lans.crossings(mark)


@pytest.mark.interop
@pytest.mark.requires("interop-peer")
async def test_nodes_without_a_region(lab: RegionLab) -> None:
    """A node as Spegel has it (go-libp2p), and a speil that was told no region; both know addresses of both regions."""
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
            # the dial itself may or may not be through before it is thrown out
            with suppress(PeerProgramError):
                await spegel.ask("connect", addr=f"{target.multiaddr}/p2p/{target.peer_id}")
            await target.says("kept out", layer="identify", who=spegel.id, why="no region")
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
    await assert_isolated(lab, lab.lans.capture.mark(), alone=[lost])
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
