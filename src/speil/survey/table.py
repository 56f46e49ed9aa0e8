"""Regions as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speil.overview.view import LeaseView, NodeView, RegionView, Traffic

COLUMNS = (
    "region", "lease", "holder", "renewed", "transitions", "nodes", "label", "hit ratio", "by bytes", "own store",
    "peers", "upstream", "kept out",
)  # fmt: skip


NODE_COLUMNS = (
    "node", "region", "zone", "state", "peers", "hit ratio", "own store", "from peers", "upstream", "to peers",
    "kept out",
)  # fmt: skip


def table(views: Sequence[RegionView]) -> str:
    """One line for each region, under a header."""
    return align([COLUMNS, *(_row(view) for view in views)])


def node_table(views: Sequence[RegionView]) -> str:
    """One line for each node, under a header."""
    return align([NODE_COLUMNS, *(_node_row(view, node) for view in views for node in (*view.nodes, *view.pending))])


def _node_row(view: RegionView, node: NodeView) -> tuple[str, ...]:
    region = view.region or "(none)"
    if node.error or node.pending:
        return (node.name, region, "-", "unreadable" if node.error else "pending", *["-"] * (len(NODE_COLUMNS) - 4))
    total = node.total
    return (
        node.name,
        region,
        node.zone or "-",
        "leads" if node.leads else "ready" if node.ready else "not ready",
        str(len(node.peers)),
        percent(total.hit_ratio),
        size(total.own_bytes),
        size(total.peer_bytes),
        size(total.upstream_bytes),
        size(total.sent_bytes),
        str(sum(node.rejected.values())),
    )


def align(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text, with columns as wide as their widest cell; all rows have as many cells as the first.

    Cells may have what a node or a Lease says: a terminal takes nothing in them as a command.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def printable(text: str) -> str:
    """The text on one line, with `?` for each control character."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _row(view: RegionView) -> tuple[str, ...]:
    lease = view.leases[0] if view.leases else LeaseView("(none)")
    total = view.total
    return (
        view.region or "(none)",
        lease.name,
        lease.error or _holder(lease),
        _age(lease),
        str(lease.lease.record.leader_transitions) if lease.lease else "-",
        _nodes(view),
        ",".join(view.labels) or "-",
        percent(total.hit_ratio),
        percent(total.byte_ratio),
        size(total.own_bytes),
        size(total.peer_bytes),
        size(total.upstream_bytes),
        str(view.rejected),
    )


def _nodes(view: RegionView) -> str:
    ready, count = sum(node.ready for node in view.nodes), len(view.nodes) + len(view.pending)
    pending = f", {len(view.pending)} pending" if view.pending else ""
    return str(count) if ready == count else f"{ready} of {count} ready{pending}"


def _holder(lease: LeaseView) -> str:
    identity = lease.lease.record.holder_identity if lease.lease else ""
    address, found, peer_id = identity.rpartition("/p2p/")
    return f"{address} …{peer_id[-6:]}" if found else identity or "(nobody)"


def _age(lease: LeaseView) -> str:
    age = lease.lease.age_seconds if lease.lease else None
    return "-" if age is None else f"{max(age, 0):.0f} s ago"


def percent(ratio: float | None) -> str:
    """`87 %`; `-` for None."""
    return "-" if ratio is None else f"{ratio * 100:.0f} %"


def size(count: int) -> str:
    """Bytes with a binary unit: `1.5 MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def document(views: Sequence[RegionView]) -> list[dict[str, Any]]:
    """The content of the table and more for `--output json`: by region, Lease, node and registry."""
    return [
        {
            "region": view.region,
            "leases": [_lease_document(lease) for lease in view.leases],
            "nodes": [
                {
                    "name": node.name,
                    "zone": node.zone,
                    "topology_region": node.label,
                    "region_from": node.region_source,
                    "lease_is_foreign": node.lease_is_foreign,
                    "peer_id": node.peer_id,
                    "ready": node.ready,
                    "leads": node.leads,
                    "peers": len(node.peers),
                    "rejected": dict(node.rejected),
                    "error": node.error,
                    **_traffic_document(node.total),
                }
                for node in view.nodes
            ],
            "pending": {node.name: node.pending for node in view.pending},
            "registries": {name: _traffic_document(traffic) for name, traffic in _by_registry(view).items()},
            "rejected": view.rejected,
            **_traffic_document(view.total),
        }
        for view in views
    ]


def _by_registry(view: RegionView) -> dict[str, Traffic]:
    found: dict[str, Traffic] = {}
    for node in view.nodes:
        for registry, traffic in node.traffic.items():
            found[registry] = found.get(registry, Traffic()) + traffic
    return found


def _lease_document(view: LeaseView) -> dict[str, Any]:
    record = view.lease.record if view.lease else None
    return {
        "name": view.name,
        "error": view.error,
        "holder": record.holder_identity if record else "",
        "region": record.region if record else None,
        "topology_region": record.label if record else "",
        "age_seconds": view.lease.age_seconds if view.lease else None,
        "transitions": record.leader_transitions if record else None,
        "nodes": record.nodes if record else None,
    }


def _traffic_document(traffic: Traffic) -> dict[str, Any]:
    return {
        "hits": traffic.hits,
        "misses": traffic.misses,
        "hit_ratio": traffic.hit_ratio,
        "byte_ratio": traffic.byte_ratio,
        "own_bytes": traffic.own_bytes,
        "peer_bytes": traffic.peer_bytes,
        "upstream_bytes": traffic.upstream_bytes,
        "sent_bytes": traffic.sent_bytes,
    }
