"""The part of `verify` that finds copied names: whether names, labels and nodes agree on the region."""

from __future__ import annotations

from collections.abc import Iterator

from speil.finding import Finding, Level
from speil.overview.view import LeaseView, RegionView
from speil.region.identity import FROM_SETTING, REGION_LABEL
from speil.region.naming import LeaseName, read

NAMES, LEASES, TRAFFIC = "names", "leases", "traffic"
NODES_NAMED_MAX = 10  # in one finding
_OWN_NAMES = "give each region its own --leader-election-name and --leader-election-namespace"


def check_labels(view: RegionView) -> Iterator[Finding]:
    """Whether all nodes that claim the region have one topology label."""
    nodes = [node for node in view.nodes if node.label is not None]  # older versions do not report it
    if view.region == "?" or not nodes:
        return
    name = view.region or "(none)"
    without = [node for node in nodes if not node.label and node.region_source != FROM_SETTING]
    if len(view.labels) > 1:
        counts = ", ".join(f"{label} ({sum(node.label == label for node in nodes)} nodes)" for label in view.labels)
        yield Finding(
            NAMES,
            Level.FAIL,
            f"nodes with different labels {REGION_LABEL} claim region {name}: {counts}; they keep each other out",
            f"if they are two regions, {_OWN_NAMES}; if they are one, set --region {name} on all of its nodes",
        )
    elif view.labels:
        yield Finding(NAMES, Level.OK, f"region {name}: its nodes have the label {view.labels[0]}")
    if view.labels and without:
        who = ", ".join(node.name for node in without[:NODES_NAMED_MAX])
        yield Finding(
            NAMES,
            Level.WARN,
            f"{len(without)} nodes of region {name} know no label {REGION_LABEL}, and accept every node of it: {who}",
            "label the nodes, and pass the label to their pods (--topology-region, --topology-from-node)",
        )
    elif view.region and without and not all(node.is_guarded for node in without):
        yield Finding(
            NAMES,
            Level.WARN,
            f"only its names distinguish region {name} from others: its nodes know no label {REGION_LABEL}, and have "
            "no --region-secret-file and no --region-networks; if the names are copied, two regions become one",
            "label the nodes and pass the label to their pods (the chart does), or set --region-secret-file",
        )


def kept_out(view: RegionView) -> Iterator[Finding]:
    """Nodes whose Lease is another region's, and those among them that know no peer."""
    name = view.region or "(none)"
    out = [node for node in view.nodes if node.lease_is_foreign]
    if not out:
        return
    alone = [node for node in out if not node.peers]
    who = ", ".join(node.name for node in out[:NODES_NAMED_MAX])
    message = f"the Lease of {who} of region {name} is another region's: they have no leader"
    yield Finding(LEASES, Level.FAIL, message, _OWN_NAMES)
    if alone:
        yield Finding(
            TRAFFIC,
            Level.FAIL,
            f"{', '.join(node.name for node in alone[:NODES_NAMED_MAX])} of region {name} know no peer of it: every "
            "image comes from upstream",
            f"{_OWN_NAMES}; meanwhile nodes find neighbours with --region-networks, and keep the peers that they "
            "knew with --data-dir",
        )


def read_as(lease: LeaseView) -> str:
    """The region that the names of a Lease name; "" where they name none."""
    namespace, _, name = lease.name.partition("/")
    return read(LeaseName(name, namespace)).agreed or "" if name and "/" not in name else ""
