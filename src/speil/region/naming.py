"""The names of a region's Lease and namespace: `<base>-<region>`, made from a region and read back.

Each region has a Lease in a namespace of its own. Where the two names end in the same `-<region>`, that is the region.
With the default bases all that follows the base is the region: `…-us-east-1` and `…-us-west-1` contradict each other,
and do not name a region `1`.
"""

from __future__ import annotations

from dataclasses import dataclass

from speil.region.label import LABEL_CHARS_MAX, RegionError, check_label, is_label, is_subdomain

LEASE_NAME_BASE = "spegel-leader-election"
LEASE_NAMESPACE_BASE = "spegel"


@dataclass(frozen=True, slots=True)
class LeaseName:
    """The name and the namespace of a Lease."""

    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


DEFAULT_LEASE = LeaseName(LEASE_NAME_BASE, LEASE_NAMESPACE_BASE)


@dataclass(frozen=True, slots=True)
class Readings:
    """The region that the Lease's name and its namespace each name; None where one names none."""

    by_name: str | None
    by_namespace: str | None

    @property
    def agreed(self) -> str | None:
        """The region that both name; None where they don't, or name none."""
        return self.by_name if self.by_name == self.by_namespace else None

    @property
    def contradict(self) -> bool:
        """Whether they name two different regions."""
        return None not in (self.by_name, self.by_namespace) and self.by_name != self.by_namespace


def lease_of(region: str) -> LeaseName:
    """The default names of `region`'s Lease. Raises RegionError if it is no label, or too long for a namespace."""
    check_label(region, "region")
    names = LeaseName(f"{LEASE_NAME_BASE}-{region}", f"{LEASE_NAMESPACE_BASE}-{region}")
    if not is_label(names.namespace):
        limit = LABEL_CHARS_MAX - len(LEASE_NAMESPACE_BASE) - 1
        raise RegionError(
            f"region {region!r} is too long for its namespace {names.namespace!r}: use at most {limit} characters, "
            "or set --leader-election-namespace"
        )
    return names


def check_lease(lease: LeaseName) -> LeaseName:
    """Returns `lease` if its names are valid in Kubernetes. Raises RegionError."""
    if not is_subdomain(lease.name):
        raise RegionError(f"--leader-election-name: {lease.name!r} is not a valid name of a Lease: use a DNS subdomain")
    check_label(lease.namespace, "--leader-election-namespace")
    return lease


def read(lease: LeaseName) -> Readings:
    """The region that each of the two names names."""
    by_name, by_namespace = _rest(lease.name, LEASE_NAME_BASE), _rest(lease.namespace, LEASE_NAMESPACE_BASE)
    usual = _on(lease.name, LEASE_NAME_BASE) and _on(lease.namespace, LEASE_NAMESPACE_BASE)
    if not usual and (common := _common_suffix(lease.name, lease.namespace)):
        return Readings(common, common)
    return Readings(by_name, by_namespace)


def readings_against(region: str, lease: LeaseName) -> tuple[str, ...]:
    """The regions that the names name, if neither of them names `region`; empty where there is no contradiction.

    A name with a base of the operator's own names every region that it ends in: `lock-eu-west` names `eu-west` and
    also `west`.
    """
    if _names(lease.name, LEASE_NAME_BASE, region) or _names(lease.namespace, LEASE_NAMESPACE_BASE, region):
        return ()
    return _named(lease)


def is_of(region: str, lease: LeaseName) -> bool:
    """Whether the names name `region` and no other. Such a Lease is that region's, whatever its annotations say."""
    return _named(lease) == (region,)


def _named(lease: LeaseName) -> tuple[str, ...]:
    readings = read(lease)
    return tuple(dict.fromkeys(one for one in (readings.by_name, readings.by_namespace) if one))


def _names(name: str, base: str, region: str) -> bool:
    if not region:
        return False
    return name == f"{base}-{region}" if _on(name, base) else name.endswith(f"-{region}")


def _on(name: str, base: str) -> bool:
    return name == base or name.startswith(f"{base}-")


def _rest(name: str, base: str) -> str | None:
    rest = name.removeprefix(f"{base}-")
    return rest if rest != name and is_label(rest) else None


def _common_suffix(name: str, namespace: str) -> str | None:
    """What follows the first '-' of the longest common ending, if it is a label."""
    count = 0
    while count < min(len(name), len(namespace)) and name[-count - 1] == namespace[-count - 1]:
        count += 1
    _, dash, rest = name[len(name) - count :].partition("-")
    while dash and not is_label(rest):
        _, dash, rest = rest.partition("-")
    return rest if dash else None
