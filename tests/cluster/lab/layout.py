"""Names and addresses of the cluster. All of them are inside its own network namespaces."""

from __future__ import annotations

from dataclasses import dataclass

CONTROL = "10.90.0.1"  # API server and registry
PRIVATE = "10.90.0.2"  # the registry that asks for a password
API_PORT = 6443
SERVICES = "10.96.0.0/24"
PODS = "10.244.0.0/16"
REGISTRY, PRIVATE_REGISTRY = "reg.test", "private.test"
# One bridge a region; a region's last node is there to be added.
REGIONS: dict[str, tuple[str, ...]] = {"regiona": ("a1", "a2", "a3"), "regionb": ("b1", "b2")}
SPARE = "a3"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node before it exists."""

    name: str
    region: str
    zone: str
    network: int  # its region's number
    address: str
    pods: str  # the first three parts of its pods' addresses


def _plans() -> dict[str, NodePlan]:
    return {
        name: NodePlan(
            name, region, f"{region}-{1 + at % 2}", number, f"10.90.{number}.{11 + at}", f"10.244.{number}{1 + at}"
        )
        for number, (region, names) in enumerate(REGIONS.items(), 1)
        for at, name in enumerate(names)
    }


PLANS = _plans()


def bridge(network: int) -> str:
    """The control plane's bridge to a region."""
    return f"br{network}"


def gateway(network: int) -> str:
    """Its address."""
    return f"10.90.{network}.1"
