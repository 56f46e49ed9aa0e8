"""What `speil region plan` and `speil region verify` say: all well, and each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.election.record import LeaderElectionRecord, Lease
from speil.finding import Finding, Level
from speil.overview.plan import check, plan
from speil.overview.verify import verify
from speil.overview.view import LeaseView, NodeView, RegionView, Traffic, group
from speil.region.label import RegionError
from speil.region.naming import lease_of

SECONDS = 5.0
START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1 << 20


def peer(region: str, number: int) -> str:
    return f"peer-{region}-{number}"


def node(region: str, number: int, *, received: int = 0, sent: int = 0) -> NodeView:
    return NodeView(
        name=f"{region}-{number}",
        region=region,
        lease=str(lease_of(region)),
        peer_id=peer(region, number),
        ready=True,
        leads=number == 0,
        peers=tuple(peer(region, other) for other in range(3) if other != number),
        started_at=1.0,
        traffic={"docker.io": Traffic(hits=3, misses=1, peer_bytes=received, sent_bytes=sent)},
    )


def lease(region: str, renewed_seconds: float, transitions: int = 1) -> LeaseView:
    record = LeaderElectionRecord(
        holder_identity=f"/ip4/10.0.0.1/tcp/5001/p2p/{peer(region, 0)}",
        lease_duration_seconds=10,
        renew_time=START + timedelta(seconds=renewed_seconds),
        leader_transitions=transitions,
        region=region,
    )
    return LeaseView(str(lease_of(region)), Lease(record, "7", 1.0))


def look(seconds: float, pulled: int = 0) -> list[RegionView]:
    """Two regions as they should be, `seconds` after the start; what was pulled came from within."""
    regions = ("a", "b")
    nodes = [node(name, n, received=pulled, sent=pulled) for name in regions for n in range(3)]
    return group([lease(name, seconds) for name in regions], nodes)


def judge(before: Sequence[RegionView], after: Sequence[RegionView]) -> list[Finding]:
    return list(verify(before, after, SECONDS))


def bad(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.OK]


def of_a(views: Sequence[RegionView], change: RegionView) -> list[RegionView]:
    return [change, *views[1:]]


def test_two_regions_as_they_should_be_pass_every_check() -> None:
    findings = judge(look(0), look(SECONDS, pulled=500 * MIB))
    assert bad(findings) == []
    assert {finding.check for finding in findings} == {"leases", "election", "traffic"}
    assert all("region a" in one.message or "region b" in one.message for one in findings)


def change_nodes(view: RegionView, number: int, **changes: object) -> RegionView:
    nodes = list(view.nodes)
    nodes[number] = replace(nodes[number], **changes)  # type: ignore[arg-type]  # tests name real fields
    return replace(view, nodes=tuple(nodes))


def change_lease(view: RegionView, **changes: object) -> RegionView:
    (one,) = view.leases
    assert one.lease is not None
    record = replace(one.lease.record, **changes)  # type: ignore[arg-type]  # tests name real fields
    return replace(view, leases=(replace(one, lease=replace(one.lease, record=record)),))


A, B = look(SECONDS, pulled=500 * MIB)
UNREAD = LeaseView(A.leases[0].name, error="there is none")


@pytest.mark.parametrize(
    ("broken", "check", "level", "said"),
    [
        (replace(A, leases=()), "leases", Level.FAIL, "region a has no Lease"),
        (replace(A, leases=(UNREAD,)), "leases", Level.FAIL, "there is none"),
        (replace(A, leases=(*A.leases, lease("a", 1))), "leases", Level.FAIL, "has 2 Leases"),
        (change_lease(A, holder_identity=""), "leases", Level.FAIL, "nobody holds"),
        (change_nodes(A, 0, leads=False), "election", Level.FAIL, "no node leads"),
        (change_nodes(A, 1, elects=False), "election", Level.FAIL, "1 nodes take no part in its election: a-1"),
        (change_nodes(A, 1, leads=True), "election", Level.FAIL, "2 nodes say that they lead"),
        (change_lease(A, holder_identity="/p2p/stranger"), "election", Level.FAIL, "none of region a's nodes"),
        (change_lease(A, renew_time=START), "election", Level.FAIL, "was not renewed in 5 s"),
        (change_lease(A, leader_transitions=3), "election", Level.WARN, "changed hands 2 times"),
        (change_nodes(A, 1, peers=(peer("b", 2),)), "traffic", Level.FAIL, "routes to peer-b-2 of region b"),
        (change_nodes(A, 1, peers=(peer("x", 9),)), "traffic", Level.WARN, "1 peers that were not looked at"),
        (change_nodes(A, 1, peers=()), "traffic", Level.WARN, "a-1 of region a has no peers"),
        (change_nodes(A, 1, started_at=9.0), "traffic", Level.WARN, "nodes came or went"),
        (change_nodes(A, 1, rejected={"http": 4, "secret": 2}), "traffic", Level.WARN, "http 4, secret 2"),
        (
            change_nodes(A, 1, traffic={"": Traffic(peer_bytes=5000 * MIB, sent_bytes=0)}),
            "traffic",
            Level.FAIL,
            "from peers, of which its own nodes sent",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(broken: RegionView, check: str, level: Level, said: str) -> None:
    found = bad(judge(look(0), [broken, B]))
    match = [one for one in found if said in one.message]
    assert match, found
    assert (match[0].check, match[0].level) == (check, level)
    assert all(one.remedy for one in found), "whatever is not well says what to do"
    assert not any("region b" in one.message and "routes to" not in one.message for one in found), "b is well"


def test_a_region_that_elects_nobody_needs_no_lease() -> None:
    by_dns = replace(A, nodes=tuple(replace(node, elects=False, leads=False) for node in A.nodes))
    found = judge(look(0), [replace(by_dns, leases=()), B])
    assert not bad(found)
    assert any("region a needs no Lease" in one.message for one in found)
    (left,) = bad(judge(look(0), [by_dns, B]))
    assert (left.level, left.check) == (Level.WARN, "leases")
    assert "kubectl delete lease" in left.remedy


def test_a_stale_lease_is_found_in_one_look() -> None:
    (one,) = A.leases
    assert one.lease is not None
    stale = replace(A, leases=(replace(one, lease=replace(one.lease, age_seconds=42.0)),))
    assert any("was not renewed for 42 s" in finding.message for finding in judge([], [stale, B]))


def test_a_lease_that_two_regions_share_fails_in_the_one_that_has_it() -> None:
    shared = [replace(one, lease=A.leases[0].name) for one in B.nodes]
    found = judge(look(0), [A, replace(B, nodes=tuple(shared), leases=())])
    assert any("is used by nodes of b too" in one.message and one.level is Level.FAIL for one in found)
    assert any("region b has no Lease" in one.message for one in found)


def test_nothing_found_is_a_failure_and_so_is_a_node_that_cannot_be_read() -> None:
    assert [one.level for one in judge([], [])] == [Level.FAIL]
    silent = group([], [NodeView("10.0.0.9:9090", error="refused")])
    (finding,) = bad(judge(silent, silent))
    assert finding.level is Level.FAIL
    assert "10.0.0.9:9090" in finding.message


@given(st.lists(st.integers(0, 1 << 40), min_size=2, max_size=2), st.integers(0, 1 << 40))
def test_ratios_are_parts_of_one(requests: list[int], upstream: int) -> None:
    traffic = Traffic(hits=requests[0], misses=requests[1], peer_bytes=requests[0], upstream_bytes=upstream)
    for ratio in (traffic.hit_ratio, traffic.byte_ratio):
        assert ratio is None or 0 <= ratio <= 1


# --- the plan ------------------------------------------------------------------------------------------------

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.lists(labels, min_size=1, max_size=20, unique=True))
def test_a_plan_on_the_usual_names_is_read_back_and_collides_nowhere(regions: list[str]) -> None:
    planned = plan(regions)
    assert [one.region for one in planned] == regions
    assert len({one.lease for one in planned}) == len(regions)
    assert all(one.lease == lease_of(one.region) for one in planned)
    assert {finding.level for finding in check(planned)} == {Level.OK}


def test_names_that_do_not_read_back_are_warned_about_and_doubles_refused() -> None:
    (finding,) = check(plan(["1"], "foo-x", "bar-x"))
    assert finding.level is Level.WARN
    assert "--region 1" in finding.remedy
    assert Level.FAIL in {finding.level for finding in check(plan(["a", "a"]))}


@pytest.mark.parametrize(("regions", "said"), [([], "--from-nodes"), (["A"], "'A'"), (["a" * 60], "namespace")])
def test_a_plan_that_cannot_be(regions: list[str], said: str) -> None:
    with pytest.raises(RegionError, match=said):
        plan(regions)


def labelled(view: RegionView, *labels: str, **change: object) -> RegionView:
    """The region's nodes with these labels, node by node."""
    nodes = [
        replace(one, label=label, region_source="lease names", **change)  # type: ignore[arg-type]
        for one, label in zip(view.nodes, labels, strict=True)
    ]
    return replace(view, nodes=tuple(nodes))


def messages(views: Sequence[RegionView], level: Level) -> list[str]:
    return [f"{one.message} → {one.remedy}" for one in judge(look(0), views) if one.level is level]


def test_labels_that_differ_within_a_region_fail_with_what_to_write() -> None:
    a, b = look(SECONDS)
    (message,) = messages([labelled(a, "eu", "eu", "us"), b], Level.FAIL)
    for part in (
        "region a",
        "eu (2 nodes), us (1 nodes)",
        "keep each other out",
        "--leader-election-name",
        "--region a on all",
    ):
        assert part in message
    assert not messages([labelled(a, "eu", "eu", "eu"), labelled(b, "us", "us", "us")], Level.WARN)


def test_nodes_without_a_label_are_warned_of() -> None:
    a, b = look(SECONDS)
    (message,) = messages([labelled(a, "eu", "", "eu"), b], Level.WARN)
    assert "1 nodes of region a" in message
    assert "a-1" in message
    (message,) = messages([labelled(a, "", "", ""), b], Level.WARN)
    assert "only its names distinguish region a" in message
    assert "--region-secret-file" in message
    assert not messages([labelled(a, "", "", "", is_guarded=True), b], Level.WARN)
    assert messages([labelled(a, "", "", "")], Level.WARN), "two that were joined look like one"


def test_a_region_that_is_kept_out_of_its_lease_is_told_what_it_costs() -> None:
    a, b = look(SECONDS)
    out = replace(a, nodes=tuple(replace(one, lease_is_foreign=True) for one in a.nodes))
    (message,) = messages([out, b], Level.FAIL)
    assert "the Lease of a-0, a-1, a-2 of region a is another region's" in message
    alone = replace(out, nodes=(replace(out.nodes[0], peers=()), *out.nodes[1:]))
    told = messages([alone, b], Level.FAIL)
    assert any("a-0 of region a know no peer of it" in one and "--region-networks" in one for one in told)


def test_a_lease_whose_annotation_denies_its_names_fails() -> None:
    a, b = look(SECONDS)
    (view,) = a.leases
    assert view.lease is not None
    record = replace(view.lease.record, region="c")
    edited = replace(a, region="c", leases=(replace(view, lease=replace(view.lease, record=record)),), nodes=())
    assert any(
        "has the names of region a and the annotation of region c" in one for one in messages([edited, b], Level.FAIL)
    )


def given_up(region: str) -> LeaseView:
    """A Lease that nobody has renewed for a minute."""
    view = lease(region, 0)
    assert view.lease is not None
    return replace(view, lease=replace(view.lease, age_seconds=60.0))


def test_a_lease_that_an_uninstall_left_is_a_warning_with_its_command() -> None:
    """Its region has no nodes and nobody renews it; another region shows that nodes were looked at."""
    nodes = [node("b", n) for n in range(3)]
    views = [group([given_up("a"), lease("b", at)], nodes) for at in (0, SECONDS)]
    found = [one for one in verify(views[0], views[1], SECONDS) if "region a" in one.message]
    assert [one.level for one in found] == [Level.WARN]
    assert "kubectl delete lease -n spegel-a spegel-leader-election-a" in found[0].remedy


def test_a_lease_without_nodes_that_is_renewed_is_judged_as_any() -> None:
    """Its nodes were not found, which is another matter."""
    nodes = [node("b", n) for n in range(3)]
    views = [group([lease("a", at), lease("b", at)], nodes) for at in (0, SECONDS)]
    assert not [one for one in verify(views[0], views[1], SECONDS) if "no nodes any more" in one.message]


def test_without_any_nodes_an_old_lease_fails() -> None:
    """With lease files alone nobody looked at nodes."""
    views = [group([given_up("a")], []) for _ in range(2)]
    assert Level.FAIL in [one.level for one in verify(views[0], views[1], SECONDS)]


def test_a_pod_that_has_not_started_is_a_warning_and_no_node() -> None:
    pending = NodeView("b-9", region="b", pending="pod speil-x is Pending: 0/4 nodes are available")
    before, after = (group([lease("b", at)], [*(node("b", n) for n in range(3)), pending]) for at in (0, SECONDS))
    assert [len(view.nodes) for view in after] == [3]
    found = list(verify(before, after, SECONDS))
    assert [one.message for one in found if one.level is not Level.OK] == [f"region b: {pending.pending}"]
