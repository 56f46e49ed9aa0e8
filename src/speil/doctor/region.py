"""Checks a node's region: contradictions, a Lease of another region, what distinguishes it from other regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from speil.finding import Finding, Level
from speil.region.identity import FROM_SETTING, REGION_LABEL

_OWN_NAMES = "give each region its own --leader-election-name and --leader-election-namespace"


def region_findings(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings from `/debug/state`; none without regions, or where the node's version does not report this."""
    region, label = state.get("region"), state.get("topology_region")
    if not region or label is None:
        return
    source = state.get("region_from", "")
    where = f"region {region} (from: {source}), {f'label {label}' if label else 'no label that counts'}"
    for note in state.get("notes") or ():
        yield Finding("region", Level.WARN, str(note), "correct it, or set --region, which decides")
    if state.get("lease_is_foreign"):
        yield from _kept_out(region, str(state.get("lease", "")), bool(state.get("peers")))
    elif label or source == FROM_SETTING or state.get("has_secret") or state.get("has_networks"):
        yield Finding("region", Level.OK, where)
    else:
        yield Finding(
            "region",
            Level.WARN,
            f"{where}: only the Lease's names distinguish it from another region",
            f"pass the node's label {REGION_LABEL} to speil (--topology-region, --topology-from-node; the chart does), "
            "or set --region-secret-file",
        )


def _kept_out(region: str, lease: str, has_peers: bool) -> Iterator[Finding]:
    yield Finding(
        "region",
        Level.FAIL,
        f"the Lease {lease} is another region's: this node of region {region} has no leader",
        f"{_OWN_NAMES}; the line `lease belongs to another region` in its log names the region that it belongs to",
    )
    if not has_peers:
        yield Finding(
            "region",
            Level.FAIL,
            "without a leader this node has no peers of its region: every image comes from upstream",
            f"{_OWN_NAMES}; meanwhile nodes find neighbours with --region-networks, and keep the peers that they had "
            "with --data-dir",
        )
