"""Plans several regions: the names of their Leases, checked before anything is created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from speil.finding import Finding, Level
from speil.region.identity import identify
from speil.region.label import RegionError, check_label
from speil.region.naming import LEASE_NAME_BASE, LEASE_NAMESPACE_BASE, LeaseName, check_lease, readings_against


@dataclass(frozen=True, slots=True)
class PlannedRegion:
    """A region and its Lease. `nodes` is None where the cluster was not asked."""

    region: str
    lease: LeaseName
    nodes: int | None = None


def plan(
    regions: Iterable[str], name_base: str = LEASE_NAME_BASE, namespace_base: str = LEASE_NAMESPACE_BASE
) -> list[PlannedRegion]:
    """The Lease of each region: `<base>-<region>` in `<base>-<region>`. Raises RegionError."""
    names = list(regions)
    if not names:
        raise RegionError("no regions are named: set --regions eu-west,us-east, or --from-nodes")
    planned = []
    for region in names:
        check_label(region, "--regions")
        lease = LeaseName(f"{name_base}-{region}", f"{namespace_base}-{region}")
        planned.append(PlannedRegion(region, check_lease(lease)))
    return planned


def check(planned: Iterable[PlannedRegion]) -> Iterator[Finding]:
    """Whether the names are different, and whether a node would read the same region from them."""
    planned = list(planned)
    for region, count in Counter(one.region for one in planned).items():
        if count > 1:
            yield Finding("names", Level.FAIL, f"region {region} is named {count} times", "name each region once")
    for one in planned:
        read = identify(lease_name=one.lease.name, lease_namespace=one.lease.namespace).region
        if read == one.region:
            yield Finding("names", Level.OK, f"{one.lease} reads as region {one.region}")
        else:
            if against := readings_against(one.region, one.lease):
                yield Finding(
                    "names",
                    Level.FAIL,
                    f"{one.lease} reads as region {' and '.join(against)}, and its nodes would refuse to start with "
                    f"--region {one.region}",
                    "choose bases after which only the region's name follows",
                )
                continue
            yield Finding(
                "names",
                Level.WARN,
                f"{one.lease} reads as {f'region {read}' if read else 'no region'}, not {one.region}",
                f"set --region {one.region} on its nodes too (the chart's `regions` do)",
            )
