"""The same election configuration in two regions: regiona's names on nodes of regionb, whose labels know better.

A sample of the cases runs by default, all of them with SPEIL_MATRIX=full.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from speil.kube.error import KubeNotFoundError
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.system.isolation.checks import (
    Pushed,
    assert_isolated,
    found,
    holder_of,
    leader_of,
    lease,
    pull_twice,
    verify,
)
from tests.system.lab.lans import NETWORKS, REGIONS
from tests.system.lab.networks import Rule
from tests.system.lab.regions import RegionLab, RegionNode

pytestmark = pytest.mark.system
FULL = os.environ.get("SPEIL_MATRIX") == "full"
LEASE_OF_A = "/apis/coordination.k8s.io/v1/namespaces/spegel-regiona/leases/spegel-leader-election-regiona"


@dataclass(frozen=True, slots=True)
class Case:
    """`first` starts first; `count` nodes of regionb have the wrong names; `rights`: to regiona's Lease too."""

    first: str
    count: int
    rights: bool

    def __str__(self) -> str:
        return f"{self.first} first, {self.count} wrong, {'with' if self.rights else 'without'} rights"


SAMPLE = [Case("regionb", 3, True), Case("regiona", 1, True)]
ALL = [Case(first, count, rights) for first in REGIONS for count in (1, 3) for rights in (True, False)]


async def begin(lab: RegionLab, case: Case) -> tuple[list[RegionNode], list[RegionNode]]:
    """The nodes of the case, started in its order, with nothing known from before: the wrong, and those left alone."""
    wrong = lab.regions["regionb"][-case.count :]
    copied = {node: lab.copied(node, rights=case.rights) for node in wrong}
    # who has the right names in time, or holds the Lease first, has met the others of its own
    alone = [] if case.count == 3 and case.rights and case.first == "regionb" else wrong
    await lab.configure(stopped=lab.nodes)
    for region in REGIONS:
        try:
            name = f"spegel-leader-election-{region}"
            await lab.cluster.admin("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/spegel-{region}/leases/{name}")
        except KubeNotFoundError:
            continue
    later = wrong if case.first == "regiona" else lab.regions["regiona"]
    await lab.configure(copied, fresh=lab.nodes, alone=alone, stopped=later)
    if case.rights:
        await eventually(lambda: held_by(lab, case.first, wrong), timeout_seconds=20, what=f"{case.first} leads")
    await lab.configure(copied, alone=alone)
    return wrong, alone


async def held_by(lab: RegionLab, region: str, wrong: Sequence[RegionNode]) -> bool:
    """Whether regiona's Lease is held from this region."""
    theirs = lab.regions["regiona"] if region == "regiona" else wrong
    try:
        return await holder_of(lab, "regiona") in {node.multiaddr for node in theirs}
    except KubeNotFoundError:
        return False


async def regiona_leads(lab: RegionLab, *, but: RegionNode | None = None) -> None:
    """Wait until regiona's Lease is held by one of its own nodes, and says so."""
    own = {node.multiaddr for node in lab.regions["regiona"] if node is not but}

    async def leads() -> bool:
        told = await lease(lab, "regiona")
        holder = told["spec"].get("holderIdentity", "").partition("/p2p/")[0]
        annotations = told["metadata"]["annotations"]
        says = {annotations["speil.dev/topology-region"], annotations["speil.dev/region"]}
        return holder in own and says == {"regiona"}

    await eventually(leads, timeout_seconds=60, what="a node of regiona leads it")


def writes(lab: RegionLab, nodes: Sequence[RegionNode], skip: int = 0) -> list[str]:
    """The addresses that have written regiona's Lease, in turn, if they are of `nodes`."""
    addresses = {node.address for node in nodes}
    return [
        one.source
        for one in lab.cluster.lease_audit()[skip:]
        if one.name.endswith("regiona") and one.verb != "get" and one.code in (200, 201) and one.source in addresses
    ]


@pytest.mark.parametrize("case", ALL if FULL else SAMPLE, ids=str)
async def test_regionas_names_in_regionb(lab: RegionLab, case: Case) -> None:
    skip = len(lab.cluster.lease_audit())
    mark = lab.lans.capture.mark()
    wrong, alone = await begin(lab, case)
    await regiona_leads(lab)
    if case.first == "regiona":
        assert not writes(lab, wrong, skip), "a node of regionb wrote regiona's Lease"
    since = len(lab.cluster.lease_audit())
    for node in wrong:
        if case.rights:
            await node.keeps_out(Layer.LEASE)
            await node.says("belongs to another region", detail="label 'regiona', this node's is 'regionb'")
            assert node.said("belongs to another region", what_to_do="--leader-election-name", meanwhile="peers")
        else:
            await node.says("lease request failed", error="not allowed to get the Lease spegel-leader-election-regiona")
    verdict = await verify(lab)
    assert verdict.exit_code == 1
    assert verdict.says("fail", "different labels", f"regiona (3 nodes), regionb ({case.count} nodes)"), verdict
    if case.rights and alone:
        assert verdict.says("fail", "know no peer of it"), verdict
    await assert_isolated(lab, mark, alone=alone)

    if case.rights and (case == SAMPLE[0] or FULL):
        await border_is_cut(lab)
        await regiona_leads(lab)
    leader = await leader_of(lab, "regiona")
    leader.speil.kill()
    await regiona_leads(lab, but=leader)
    assert not writes(lab, wrong, since), "a node of regionb wrote regiona's Lease"
    leader.start_with(leader.flags or [])
    await leader.lives()

    await lab.configure()
    await assert_isolated(lab, mark)
    verdict = await verify(lab)
    assert verdict.exit_code == 0, verdict
    assert await leader_of(lab, "regionb")


async def border_is_cut(lab: RegionLab) -> None:
    """regiona and whoever is elsewhere don't reach each other, for longer than a lease lasts; then they do."""
    inside = [node.address for node in lab.regions["regiona"]]
    lab.lans.rule(
        *(Rule(source=one, loss=1.0) for one in inside),
        *(Rule(target=one, loss=1.0) for one in inside),
    )
    try:
        before = (await lease(lab, "regiona"))["spec"]["renewTime"]
        strangers = [node for node in lab.regions["regionb"] if node.flags != lab.documented("regionb")]
        polls = [node.metric("speil_election_requests_total", verb="get", outcome="ok") for node in strangers]

        def looked() -> bool:
            now = [node.metric("speil_election_requests_total", verb="get", outcome="ok") for node in strangers]
            return all(later > earlier for later, earlier in zip(now, polls, strict=True))

        # those who may look have looked again, at a Lease that nobody renews
        await eventually(looked, timeout_seconds=90, what="regionb's nodes look at the Lease")
        told = await lease(lab, "regiona")
        assert told["spec"]["renewTime"] >= before
        assert told["metadata"]["annotations"]["speil.dev/topology-region"] == "regiona"
        assert await holder_of(lab, "regiona") in {node.multiaddr for node in lab.regions["regiona"]}
    finally:
        lab.lans.rule()


async def test_a_region_that_is_kept_out_finds_its_own_nodes_by_its_networks(lab: RegionLab) -> None:
    """No Lease, no peers from before: the region's networks are enough, and nothing else is dialled."""
    nodes = lab.regions["regionb"]
    networks = f"--region-networks={NETWORKS['regionb']}"
    await lab.configure()
    mark = lab.lans.capture.mark()
    await lab.configure({node: [*lab.copied(node), networks] for node in nodes}, fresh=nodes)
    for node in nodes:
        await node.keeps_out(Layer.LEASE)
    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)


@pytest.mark.parametrize(
    "edit",
    [{"speil.dev/topology-region": "regionb"}, {"speil.dev/region": "regionb"}]
    if FULL
    else [{"speil.dev/region": "regionb"}],
    ids=str,
)
async def test_an_edited_lease_is_told_and_mended(lab: RegionLab, edit: dict[str, str]) -> None:
    await lab.configure()
    mark = lab.lans.capture.mark()
    before = (await lease(lab, "regionb"))["spec"]
    patch = {"metadata": {"annotations": edit}}
    await lab.cluster.admin("PATCH", LEASE_OF_A, patch, content_type="application/merge-patch+json")
    pushed = Pushed(lab, "regiona")
    await pull_twice(lab, pushed, *lab.regions["regiona"][:2], meshed=True)
    await regiona_leads(lab)
    assert any(node.said("belongs to another region", meanwhile="peers") for node in lab.regions["regiona"])
    # by the leader, which may have lost it meanwhile, or by the next one
    assert any(
        node.said(did, detail="taken back")
        for node in lab.regions["regiona"]
        for did in ("lease renewed", "lease acquired")
    )
    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)
    after = (await lease(lab, "regionb"))["spec"]
    assert (after["holderIdentity"], after["leaseTransitions"]) == (
        before["holderIdentity"],
        before["leaseTransitions"],
    )


async def test_names_alone_and_no_label_are_one_region_and_that_is_told(lab: RegionLab) -> None:
    """What no layer can tell apart: no label, no secret, no networks. A label on one side is enough to be warned."""
    unlabelled = {node: lab.documented("regiona")[:4] for node in lab.regions["regiona"]}
    copied = {node: lab.copied(node, label=False) for node in lab.regions["regionb"]}
    await lab.configure({**unlabelled, **copied}, fresh=lab.nodes)
    await lab.regions["regionb"][0].meets({node.peer_id for node in lab.regions["regiona"]})
    verdict = await verify(lab)
    assert verdict.says("warn", "only its names distinguish region regiona", "no --region-networks"), verdict

    networks = [f"--region-networks={NETWORKS[region]}" for region in REGIONS]
    guarded = {node: [*flags, networks[node.region == "regionb"]] for node, flags in {**unlabelled, **copied}.items()}
    mark = lab.lans.capture.mark()
    # the two regions still share a Lease, whose leader only one of them reaches
    await lab.configure(guarded, fresh=lab.nodes)
    for node in lab.nodes:
        others = {one.peer_id for one in lab.regions[node.region]} - {node.peer_id}
        await node.knows_nobody_but(others)
    held = Pushed(lab, "both")
    await lab.regions["regiona"][0].pull(f"{held.name}:1")
    for node in lab.regions["regionb"]:
        assert await found(lab, node, held.targets) == 0
    assert not [packet for packet in lab.lans.crossings(mark) if packet.payload and 5000 in (packet.source_port,)]
    await lab.configure()
