"""Decides which region and which zone a node is in.

The first of these that names a region decides: `--region`; the two names of the Lease, where both end in the same
region; the node's topology label. Where the Lease's names are not set, they follow from the region. Names that
contradict each other, or contradict `--region`, are refused: such a node would campaign in one region and call itself
another. The result carries the source of each answer, because that is the first thing an operator needs to know.

Names can be copied from one region into another, labels can't. So the label counts when peers are compared (`policy`),
unless `--region` is set: then the operator has decided.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from speil.region.label import LABEL_CHARS_MAX, RegionError, check_label, is_label, is_label_value
from speil.region.naming import DEFAULT_LEASE, LeaseName, check_lease, is_of, lease_of, read, readings_against

REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"
FROM_SETTING = "setting"
FROM_NAMES = "lease names"
FROM_LABEL = "node label"
FROM_NOTHING = "none"


@dataclass(frozen=True, slots=True)
class RegionIdentity:
    """The result. `region` is "" in a mesh without regions. The sources are FROM_… constants.

    `label` is the node's topology label where it counts; "" where there is none, and where `--region` is set.
    """

    region: str
    region_source: str
    zone: str
    zone_source: str
    lease: LeaseName
    notes: tuple[str, ...] = ()  # for the log: what looks like a mistake, in sentences
    label: str = ""

    @property
    def lease_is_ours(self) -> bool:
        """Whether the names of the Lease name this region, and no other."""
        return is_of(self.region, self.lease)


def identify(
    *,
    region: str = "",
    zone: str = "",
    lease_name: str = "",
    lease_namespace: str = "",
    region_label: str = "",
    zone_label: str = "",
) -> RegionIdentity:
    """Decide from the settings and from the node's labels; "" is not set. Raises RegionError."""
    written = LeaseName(lease_name or DEFAULT_LEASE.name, lease_namespace or DEFAULT_LEASE.namespace)
    readings = read(check_lease(written))
    notes: list[str] = []
    if region:
        chosen, source = check_label(region, "--region"), FROM_SETTING
        lease = _lease(region, lease_name, lease_namespace)
        if against := readings_against(region, lease):
            raise RegionError(
                f"--region is {region}, and the names of the Lease {lease} read as region {' and '.join(against)}: "
                f"set --region {against[0]} if this node belongs there. If it belongs to {region}, leave out "
                "--leader-election-name and --leader-election-namespace, which then follow from --region, or let both "
                f"end in -{region}"
            )
        if region_label and region_label != region:
            notes.append(f"the node's label {REGION_LABEL} is {region_label}; --region decides: {region}")
    elif readings.contradict:
        raise RegionError(
            f"--leader-election-name {written.name} reads as region {readings.by_name}, "
            f"--leader-election-namespace {written.namespace} as region {readings.by_namespace}: correct one of them, "
            f"or set --region {readings.by_name} or --region {readings.by_namespace}"
        )
    elif readings.agreed:
        chosen, source = readings.agreed, FROM_NAMES
        if region_label and region_label != chosen:
            notes.append(
                f"the node's label {REGION_LABEL} is {region_label}; the names of the Lease decide: {chosen}. Nodes "
                f"with another label are kept out. If they all are one region, set --region {chosen} on all of them"
            )
    elif region_label:
        if not is_label(region_label):
            raise RegionError(
                f"node label {REGION_LABEL}: {region_label!r} can't be a region's name, which is a DNS label: set "
                f"--region{_suggested(region_label)} on all nodes of the region"
            )
        chosen, source = region_label, FROM_LABEL
    else:
        chosen, source = "", FROM_NOTHING
    if not chosen and (one_sided := readings.by_name or readings.by_namespace):
        notes.append(
            f"only one of the names of the Lease {written} ends in {one_sided}, so this node is in no region; "
            f"set --region {one_sided} if that is its region"
        )
    zone_found, zone_source = _zone(zone, zone_label, notes)
    label = _check_label_value(region_label) if source in (FROM_NAMES, FROM_LABEL) else ""
    lease = _lease(chosen, lease_name, lease_namespace)
    return RegionIdentity(chosen, source, zone_found, zone_source, lease, tuple(notes), label)


def _check_label_value(text: str) -> str:
    if text and not is_label_value(text):
        # ignored, it would let this node join nodes of another region
        raise RegionError(
            f"node label {REGION_LABEL}: {text!r} is not a valid label value in Kubernetes: correct --topology-region"
        )
    return text


def _suggested(text: str) -> str:
    """A region's name derived from a label's value, for the message; "" where none can be derived."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())[:LABEL_CHARS_MAX].strip("-")
    return f" {name}" if is_label(name) else ""


def _lease(region: str, name: str, namespace: str) -> LeaseName:
    """The names that are set; the region's default names for those that are not. Raises RegionError."""
    if name and namespace:
        return LeaseName(name, namespace)
    own = lease_of(region) if region else DEFAULT_LEASE
    return LeaseName(name or own.name, namespace or own.namespace)


def _zone(zone: str, label: str, notes: list[str]) -> tuple[str, str]:
    if zone:
        return check_label(zone, "--zone"), FROM_SETTING
    if label and not is_label(label):
        # zones are a preference and no border: no reason to refuse to start
        notes.append(f"the node's label {ZONE_LABEL} is {label!r}, which can't be a zone's name: this node has no zone")
        return "", FROM_NOTHING
    return (label, FROM_LABEL) if label else ("", FROM_NOTHING)
