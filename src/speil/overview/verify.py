"""Checks whether regions are isolated: their Leases, their elections, their traffic.

Two views of the same regions, taken some seconds apart, are compared. In between a leader must have renewed and must
not have changed, and bytes that nodes got from peers must have been sent by peers of the same region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from speil.finding import Finding, Level
from speil.overview.verify_identity import LEASES, check_labels, kept_out, read_as
from speil.overview.view import LeaseView, NodeView, RegionView

ELECTION, TRAFFIC = "election", "traffic"
NAMED_MAX = 5  # nodes in one line
IN_FLIGHT_BYTES = 64 << 20  # of one node: bytes that the receiver has counted already and the sender has not


def verify(before: Sequence[RegionView], after: Sequence[RegionView], seconds: float) -> Iterator[Finding]:
    """One finding for each check and region. `seconds` is the time between the two views."""
    if not after:
        yield Finding(
            LEASES,
            Level.FAIL,
            "no region was found",
            "set --regions, --metrics-urls or --lease-files, or another --kubeconfig-context",
        )
    earlier = {view.region: view for view in before}
    owners = {node.peer_id: view.region for view in after for node in view.nodes if node.peer_id}
    is_looked_at = any(view.nodes for view in after)
    for view in after:
        if is_looked_at and _is_given_up(view):
            yield from _given_up(view)
            continue
        yield from _pending(view)
        yield from check_labels(view)
        if view.nodes and not any(node.elects for node in view.nodes):
            yield from _without_election(view)
        else:
            yield from _leases(view, after)
            yield from _election(view, earlier.get(view.region), seconds)
        yield from _members(view, owners)
        yield from _bytes(view, earlier.get(view.region))
        yield from _rejected(view)


def _is_given_up(view: RegionView) -> bool:
    """It has Leases that nobody renews, and no nodes: it was uninstalled, and its Leases stayed."""
    ages = [(one.lease.age_seconds, one.lease.record.lease_duration_seconds) for one in view.leases if one.lease]
    is_old = all(age is not None and age > max(duration, 1) for age, duration in ages)
    return bool(ages) and len(ages) == len(view.leases) and is_old and not view.nodes and not view.pending


def _given_up(view: RegionView) -> Iterator[Finding]:
    for lease in view.leases:
        namespace, _, name = lease.name.rpartition("/")
        message = f"region {view.region or '(none)'} has no nodes any more, and its Lease {lease.name} stayed"
        yield Finding(
            LEASES, Level.WARN, message, f"if it is not to come back: kubectl delete lease -n {namespace} {name}"
        )


def _pending(view: RegionView) -> Iterator[Finding]:
    for node in view.pending:
        message = f"region {view.region or '(none)'}: {node.pending}"
        yield Finding(TRAFFIC, Level.WARN, message, "a Pending pod holds up each rollout: see `kubectl describe pod`")


def _without_election(view: RegionView) -> Iterator[Finding]:
    """Its nodes have another --bootstrap-kind than kubernetes."""
    name = view.region or "(none)"
    yield from kept_out(view)
    yield Finding(LEASES, Level.OK, f"region {name} needs no Lease: its nodes find their peers without an election")
    for lease in view.leases:
        namespace, _, of = lease.name.rpartition("/")
        remedy = f"if no node is to elect a leader again: kubectl delete lease -n {namespace} {of}"
        yield Finding(LEASES, Level.WARN, f"no node of region {name} uses its Lease {lease.name}", remedy)


def _leases(view: RegionView, everybody: Sequence[RegionView]) -> Iterator[Finding]:
    name = view.region or "(none)"
    if view.region == "?":
        for node in view.nodes:
            yield Finding(TRAFFIC, Level.FAIL, f"node {node.name} can't be read: {node.error}", "see its log")
        return
    yield from kept_out(view)
    if not view.leases:
        remedy = (
            "start its nodes with --bootstrap-kind kubernetes; if they run, see in their logs whether they may write it"
        )
        yield Finding(LEASES, Level.FAIL, f"region {name} has no Lease", remedy)
        return
    if len(view.leases) > 1:
        names = ", ".join(lease.name for lease in view.leases)
        remedy = "delete the one that is not used, or give its nodes the same Lease names"
        yield Finding(LEASES, Level.FAIL, f"region {name} has {len(view.leases)} Leases: {names}", remedy)
    for lease in view.leases:
        askers = {(other.region, node.lease) for other in everybody for node in other.nodes}
        shared = sorted(region for region, asked in askers if asked == lease.name and region != view.region)
        holder = lease.lease.record.holder_identity if lease.lease else ""
        if lease.error:
            remedy = "start its nodes; if they run, see in their logs whether they may write it"
            yield Finding(LEASES, Level.FAIL, f"{lease.name} of region {name}: {lease.error}", remedy)
        elif (of := read_as(lease)) and of != view.region:
            remedy = (
                "its holder's region is set wrong: correct it, or delete the Lease, and the right region creates it"
            )
            yield Finding(
                LEASES,
                Level.FAIL,
                f"{lease.name} has the names of region {of} and the annotation of region {name}",
                remedy,
            )
        elif shared:
            remedy = "give each region its own --leader-election-name and --leader-election-namespace"
            message = f"{lease.name} of region {name} is used by nodes of {', '.join(shared)} too"
            yield Finding(LEASES, Level.FAIL, message, remedy)
        elif not holder:
            yield Finding(
                LEASES,
                Level.FAIL,
                f"nobody holds {lease.name} of region {name}",
                "see lines with component=election in the logs of its nodes",
            )
        else:
            yield Finding(LEASES, Level.OK, f"region {name}: {lease.name} is its own, held by {holder}")


def _election(view: RegionView, before: RegionView | None, seconds: float) -> Iterator[Finding]:
    name = view.region or "(none)"
    leaders = [node.name for node in view.nodes if node.leads]
    if view.nodes and view.region != "?":
        if outside := [node.name for node in view.nodes if not node.elects]:
            yield Finding(
                ELECTION,
                Level.FAIL,
                f"region {name}: {len(outside)} nodes take no part in its election: {', '.join(outside[:NAMED_MAX])}",
                "give all nodes of a region the same --bootstrap-kind",
            )
        if len(leaders) == 1:
            yield Finding(ELECTION, Level.OK, f"region {name}: {leaders[0]} leads, {len(view.nodes) - 1} follow")
        else:
            said = f"{len(leaders)} nodes say that they lead: {', '.join(leaders)}" if leaders else "no node leads"
            yield Finding(
                ELECTION, Level.FAIL, f"region {name}: {said}", "see lines with component=election in the nodes' logs"
            )
    for lease in view.leases:
        if lease.lease is None:
            continue
        peer_id, known = lease.holder_peer_id, {node.peer_id for node in view.nodes}
        if view.nodes and peer_id not in known and lease.lease.record.holder_identity:
            remedy = "if the node is gone, another one leads within seconds; if not, find out whose address that is"
            yield Finding(ELECTION, Level.FAIL, f"the holder of {lease.name} is none of region {name}'s nodes", remedy)
        yield from _renewal(name, lease, before, seconds)


def _renewal(name: str, lease: LeaseView, before: RegionView | None, seconds: float) -> Iterator[Finding]:
    assert lease.lease is not None
    record, age = lease.lease.record, lease.lease.age_seconds
    if age is not None and age > max(record.lease_duration_seconds, 1):
        remedy = "see in the leader's log whether it can reach the API server"
        yield Finding(ELECTION, Level.FAIL, f"{lease.name} was not renewed for {age:.0f} s", remedy)
    earlier = next((one.lease for one in before.leases if one.name == lease.name), None) if before else None
    if earlier is None or seconds <= 0:
        return
    if record.leader_transitions != earlier.record.leader_transitions:
        message = f"{lease.name} changed hands {record.leader_transitions - earlier.record.leader_transitions} times"
        yield Finding(
            ELECTION,
            Level.WARN,
            f"{message} in {seconds:.0f} s",
            "see the lines `lease lost` in its nodes' logs for the reason",
        )
    elif record.heartbeat == earlier.record.heartbeat:
        yield Finding(ELECTION, Level.FAIL, f"{lease.name} was not renewed in {seconds:.0f} s", "see the leader's log")
    else:
        yield Finding(ELECTION, Level.OK, f"region {name}: renewed within {seconds:.0f} s by the same holder")


def _members(view: RegionView, owners: Mapping[str, str]) -> Iterator[Finding]:
    if view.region == "?" or not view.nodes:
        return
    name = view.region or "(none)"
    unknown = 0
    for node in view.nodes:
        foreign = [peer for peer in node.peers if owners.get(peer, view.region) != view.region]
        unknown += sum(peer not in owners for peer in node.peers)
        for peer in foreign:
            remedy = "see its --region and --dht-protocol-prefix, and set --region-secret-file"
            yield Finding(
                TRAFFIC, Level.FAIL, f"{node.name} of region {name} routes to {peer} of region {owners[peer]}", remedy
            )
        if not foreign and not node.peers and len(view.nodes) > 1:
            yield Finding(
                TRAFFIC,
                Level.WARN,
                f"{node.name} of region {name} has no peers",
                "see lines with component=bootstrap in its log",
            )
    if unknown:
        yield Finding(
            TRAFFIC,
            Level.WARN,
            f"region {name} routes to {unknown} peers that were not looked at",
            "look at all nodes of all regions",
        )
    elif not any(owners.get(peer, view.region) != view.region for node in view.nodes for peer in node.peers):
        yield Finding(TRAFFIC, Level.OK, f"region {name}: every peer of its {len(view.nodes)} nodes is one of them")


def _bytes(view: RegionView, before: RegionView | None) -> Iterator[Finding]:
    if before is None or view.region == "?" or not view.nodes:
        return
    name = view.region or "(none)"
    earlier = {node.peer_id: node for node in before.nodes}
    if any(_restarted(node, earlier.get(node.peer_id)) for node in view.nodes) or len(earlier) != len(view.nodes):
        yield Finding(
            TRAFFIC, Level.WARN, f"region {name}: nodes came or went, so bytes were not compared", "run it again"
        )
        return
    received = view.total.peer_bytes - before.total.peer_bytes
    sent = view.total.sent_bytes - before.total.sent_bytes
    if received - sent > IN_FLIGHT_BYTES * len(view.nodes):
        message = f"region {name} took {received} bytes from peers, of which its own nodes sent {sent}"
        yield Finding(TRAFFIC, Level.FAIL, message, "bytes came from outside the region: set --region-secret-file")
    else:
        yield Finding(TRAFFIC, Level.OK, f"region {name}: {received} bytes from peers, {sent} sent by its own nodes")


def _restarted(node: NodeView, before: NodeView | None) -> bool:
    return before is None or node.started_at != before.started_at


def _rejected(view: RegionView) -> Iterator[Finding]:
    name = view.region or "(none)"
    layers: dict[str, int] = {}
    for node in view.nodes:
        for layer, count in node.rejected.items():
            layers[layer] = layers.get(layer, 0) + count
    if layers:
        counts = ", ".join(f"{layer} {count}" for layer, count in sorted(layers.items()))
        yield Finding(
            TRAFFIC,
            Level.WARN,
            f"region {name} rejected attempts from outside, by layer: {counts}",
            "nothing crossed; lines `kept out of the region` in the nodes' logs say who tried and what to correct",
        )
    elif view.nodes and view.region != "?":
        yield Finding(TRAFFIC, Level.OK, f"region {name}: nobody from outside tried to get in")
