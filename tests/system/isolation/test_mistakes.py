"""Misconfigured on purpose: what an operator can get wrong, each mistake by itself."""

from __future__ import annotations

import asyncio

import pytest

from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.system.isolation.checks import Pushed, assert_isolated, found, lease, verify
from tests.system.lab.regions import RegionLab

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("namespaces", "registry", "containerd-1", "containerd-2", "kubernetes"),
]


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
    await eventually(
        lambda: nodes[0].said("can't be asked", error="not allowed to get the Lease spegel-leader-election-regiona")
    )
    for node in nodes[1:]:
        await eventually(lambda node=node: node.rejected(Layer.LEASE) >= 1, what=f"{node} sees whose Lease it is")
        assert node.said("belongs to another region", detail="regiona", what_to_do="--leader-election-namespace")
    for node in nodes:
        assert node.said("--region is regionb, and the names of the Lease")
    verdict, _ = await asyncio.gather(verify(lab), assert_isolated(lab, mark))
    assert verdict.exit_code == 1
    assert verdict.failed("spegel-regiona/spegel-leader-election-regiona", "is asked by nodes of regionb too"), verdict
    assert not lab.lans.crossings(mark), "they go on with the peers that they knew"
    after = await lease(lab, "regiona")
    assert after["spec"]["holderIdentity"] == before["spec"]["holderIdentity"]
    assert after["metadata"]["annotations"]["speil.dev/region"] == "regiona"


async def test_a_region_that_was_given_the_others_address(lab: RegionLab) -> None:
    mark, nodes, target = lab.lans.capture.mark(), lab.regions["regionb"], lab.regions["regiona"][0]
    flags = ["--bootstrap-kind=static", f"--static-bootstrap-peers={target.multiaddr}", *lab.documented("regionb")[1:]]
    await lab.configure(dict.fromkeys(nodes, flags), fresh=nodes, alone=nodes)
    for node in nodes:
        await eventually(lambda node=node: node.rejected(Layer.IDENTIFY) >= 1, what=f"{node} is told of")
        assert node.said("kept out", layer="identify", who=target.peer_id, why="regiona", what_to_do="bootstrap address")
        await eventually(lambda node=node: target.said("kept out", layer="identify", who=node.peer_id, why="regionb"))
    assert target.rejected(Layer.IDENTIFY) >= len(nodes)
    await assert_isolated(lab, mark, meshed=["regiona"])
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
    await eventually(lambda: wrong.said("belongs to another region", detail="regionb", what_to_do="give each region"))
    for node in (first, second):
        await eventually(lambda node=node: node.rejected(Layer.IDENTIFY) > before[node], what=f"{node} keeps it out")
        assert node.said("kept out", who=wrong.peer_id, why="regiona", what_to_do="correct its --region")
    only_there = Pushed(lab, "regionb")
    await wrong.pull(f"{only_there.name}:1")
    await eventually(lambda: wrong.metric("speil_provided_keys") > 0, what="it announces")
    await assert_isolated(lab, mark)
    for node in (*lab.regions["regiona"], first, second):
        assert await found(lab, node, only_there.targets) == 0
    assert not wrong.peers
    assert not lab.lans.crossings(mark)


async def test_a_wrong_region_where_regions_have_secrets_and_networks(lab: RegionLab) -> None:
    """A node label that is wrong gets a node the other region's whole release; a wrong --region but a part of it."""
    wrong, neighbours = lab.regions["regionb"][2], lab.regions["regiona"]
    with_secret = lab.with_secrets()
    networks = "--region-networks=10.81.1.0/24"
    with_secret[neighbours[0]].append(networks)
    mark = lab.lans.capture.mark()

    seeds = ",".join(node.multiaddr for node in neighbours)
    part = ["--region=regiona", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
    own_secret = f"--region-secret-file={lab.secrets['regionb']}"
    await lab.configure({**with_secret, wrong: [*part, own_secret]}, fresh=[wrong], alone=[wrong])
    for node, layer in zip(neighbours, (Layer.NETWORK, Layer.SECRET, Layer.SECRET), strict=True):
        await eventually(lambda node=node, layer=layer: node.rejected(layer) >= 1, what=f"{node} keeps it out")
        assert node.said("kept out", layer=layer.value, who=wrong.address, what_to_do="if it belongs to the region")
    assert not wrong.peers
    await assert_isolated(lab, mark)

    wrong.speil.stop()
    wrong.start_with([*lab.documented("regiona"), f"--region-secret-file={lab.secrets['regiona']}", networks])
    await eventually(lambda: not wrong.speil.running, timeout_seconds=30, what="it refuses to start")
    assert f"none of this node's addresses ({wrong.address}) is in the networks of region regiona" in wrong.last_words
    assert "its region is set wrong, or a network is missing" in wrong.last_words
    pushed = Pushed(lab, "regionb")
    await wrong.pull(f"{pushed.name}:1")
    await lab.configure(with_secret)
    await assert_isolated(lab, mark)
