"""Which region, and which zone, am I in?

The first of these that says something decides: `--region`; the two names of the Lease, where both end in it; the
node's topology label. A region that is not told by the names names the Lease in its turn. Names that contradict each
other, or `--region`, are refused: such a node would campaign in one region and call itself by the other. The outcome
carries its source, because "why does it think so?" is the first thing an operator asks.

Names can be copied from one region into another, labels can't. So the label takes part in who belongs together
(`policy`), unless `--region` was given: then the operator has answered the question himself.
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
    """The answer. `region` is "" without regions; the sources are one of the FROM_… words.

    `label` is the node's topology label where it takes part in who belongs together; "" where there is none, and where
    `--region` was given.
    """

    region: str
    region_source: str
    zone: str
    zone_source: str
    lease: LeaseName
    notes: tuple[str, ...] = ()  # what an operator should look at, in sentences
    label: str = ""

    @property
    def lease_is_ours(self) -> bool:
        """Whether the names of the Lease tell this region, and no other."""
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
    """Decide from what the operator wrote ("" where nothing) and from the node's labels. Raises RegionError."""
    written = LeaseName(lease_name or DEFAULT_LEASE.name, lease_namespace or DEFAULT_LEASE.namespace)
    readings = read(check_lease(written))
    notes: list[str] = []
    if region:
        chosen, source = check_label(region, "--region"), FROM_SETTING
        lease = _lease(region, lease_name, lease_namespace)
        if against := readings_against(region, lease):
            raise RegionError(
                f"--region is {region}, and the names of the Lease {lease} read as region {' and '.join(against)}: "
                f"say --region {against[0]} if this node belongs there; if it belongs to {region}, leave "
                "--leader-election-name and --leader-election-namespace out, and they follow from --region, or let "
                f"them end in -{region}"
            )
        if region_label and region_label != region:
            notes.append(f"the node's label {REGION_LABEL} is {region_label}; --region decides: {region}")
    elif readings.contradict:
        raise RegionError(
            f"--leader-election-name {written.name} reads as region {readings.by_name}, "
            f"--leader-election-namespace {written.namespace} as region {readings.by_namespace}: correct one of them, "
            f"or say which it is with --region {readings.by_name} or --region {readings.by_namespace}"
        )
    elif readings.agreed:
        chosen, source = readings.agreed, FROM_NAMES
        if region_label and region_label != chosen:
            notes.append(
                f"the node's label {REGION_LABEL} is {region_label}; the names of the Lease decide: {chosen}. Nodes "
                f"that have another label are kept out: if they are one region, set --region {chosen} on all of its "
                "nodes"
            )
    elif region_label:
        if not is_label(region_label):
            raise RegionError(
                f"node label {REGION_LABEL}: {region_label!r} can't be a region's name, which is a DNS label: say "
                f"--region{_suggested(region_label)} on all nodes of the region"
            )
        chosen, source = region_label, FROM_LABEL
    else:
        chosen, source = "", FROM_NOTHING
    if not chosen and (one_sided := readings.by_name or readings.by_namespace):
        notes.append(
            f"only one of the names of the Lease {written} ends in {one_sided}, so this node is in no region; "
            f"say --region {one_sided} if that is its region"
        )
    zone_found, zone_source = _zone(zone, zone_label, notes)
    label = _check_label_value(region_label) if source in (FROM_NAMES, FROM_LABEL) else ""
    lease = _lease(chosen, lease_name, lease_namespace)
    return RegionIdentity(chosen, source, zone_found, zone_source, lease, tuple(notes), label)


def _check_label_value(text: str) -> str:
    if text and not is_label_value(text):
        # taken as no label, it would let this node in where it does not belong
        raise RegionError(
            f"node label {REGION_LABEL}: {text!r} is not a value that Kubernetes takes for a label; correct "
            "--topology-region"
        )
    return text


def _suggested(text: str) -> str:
    """A region's name made of a label's value, for the message; "" where none can be made."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())[:LABEL_CHARS_MAX].strip("-")
    return f" {name}" if is_label(name) else ""


def _lease(region: str, name: str, namespace: str) -> LeaseName:
    """What the operator wrote, and the region's own names where he wrote nothing. Raises RegionError."""
    if name and namespace:
        return LeaseName(name, namespace)
    own = lease_of(region) if region else DEFAULT_LEASE
    return LeaseName(name or own.name, namespace or own.namespace)


def _zone(zone: str, label: str, notes: list[str]) -> tuple[str, str]:
    if zone:
        return check_label(zone, "--zone"), FROM_SETTING
    if label and not is_label(label):
        # a preference, never a border: no reason to refuse to start
        notes.append(f"the node's label {ZONE_LABEL} is {label!r}, which is no name for a zone: going without")
        return "", FROM_NOTHING
    return (label, FROM_LABEL) if label else ("", FROM_NOTHING)
