"""The sections of the page, as JSON objects. Sizes are in bytes, times in Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from speil.finding import Finding
from speil.overview.flows import Peers, by_zone, crossings, edges, rollouts
from speil.overview.history import STEP_SECONDS, History
from speil.overview.verify_identity import kept_out
from speil.overview.view import LeaseView, RegionView, Traffic

KEPT_OUT_MAX = 100  # rows, the last ones of all regions
ERRORS_MAX = 20  # nodes that can't be read, of one region; the others are counted


def region(view: RegionView, peers: Peers, history: History, now: float) -> dict[str, Any]:
    """One region: its Lease, its nodes by zone, the edges that carried bytes in the last minute."""
    lease = view.leases[0] if view.leases else LeaseView("")
    errors = [f"{node.name}: {node.error}" for node in view.nodes if node.error]
    return {
        "region": view.region,
        "lease": _lease(lease),
        "leases": len(view.leases),
        "by_zone": by_zone(view),
        "nodes": [
            {
                "name": node.name,
                "zone": node.zone,
                "ready": node.ready,
                "leads": node.leads,
                "is_read": not node.error,
                "minute": sum(one.minute for one in node.from_peers.values()),
            }
            for node in view.nodes
        ],
        "pending": [node.pending for node in view.pending][:ERRORS_MAX],
        "errors": errors[:ERRORS_MAX],
        "errors_total": len(errors),
        "edges": [asdict(edge) for edge in edges(view, peers)],
        "total": _traffic(view.total),
        "hour": _traffic(history.hour(view.region, now)),
        "rejected": view.rejected,
        "labels": view.labels,
    }


def steps(region_name: str, history: History, now: float) -> dict[str, Any]:
    """The last hour of one region."""
    found = history.steps(region_name, now)
    return {
        "region": region_name,
        "step_seconds": STEP_SECONDS,
        "steps": [{"since": step.since, **_traffic(step.traffic)} for step in found],
    }


def border(views: Sequence[RegionView], peers: Peers) -> dict[str, Any]:
    """What crossed between each two regions."""
    return {"crossings": [asdict(one) for one in crossings(views, peers)]}


def rollout_trees(views: Iterable[RegionView], peers: Peers) -> dict[str, Any]:
    """The roll-outs under way."""
    return {
        "rollouts": [{**asdict(one), "roles": dict(one.roles), "count": one.count} for one in rollouts(views, peers)]
    }


def kept_out_rows(views: Iterable[RegionView]) -> dict[str, Any]:
    """Who was kept out, with the remedy: nodes of other regions, and this region's nodes with a foreign Lease."""
    views = list(views)
    rows = [
        {"region": view.region, "node": node.name, **asdict(one)}
        for view in views
        for node in view.nodes
        for one in node.kept_out
    ]
    rows.sort(key=lambda row: -float(row["time"]))
    layers: dict[str, int] = {}
    for view in views:
        for node in view.nodes:
            for layer, count in node.rejected.items():
                layers[layer] = layers.get(layer, 0) + count
    return {
        "layers": layers,
        "rows": rows[:KEPT_OUT_MAX],
        "left_out": max(len(rows) - KEPT_OUT_MAX, 0),
        "findings": findings(one for view in views for one in kept_out(view)),
    }


def findings(found: Iterable[Finding]) -> list[dict[str, Any]]:
    """Results of checks."""
    return [asdict(one) for one in found]


def _lease(view: LeaseView) -> dict[str, Any]:
    record = view.lease.record if view.lease else None
    holder = record.holder_identity if record else ""
    address, _, peer_id = holder.rpartition("/p2p/")
    parts = address.split("/")
    return {
        "name": view.name,
        "error": view.error,
        "holder": parts[2] if len(parts) > 2 else holder,
        "holder_peer": peer_id,
        "age_seconds": round(view.lease.age_seconds) if view.lease and view.lease.age_seconds is not None else None,
        "transitions": record.leader_transitions if record else None,
    }


def _traffic(traffic: Traffic) -> dict[str, Any]:
    return {**asdict(traffic), "hit_ratio": traffic.hit_ratio, "byte_ratio": traffic.byte_ratio}
