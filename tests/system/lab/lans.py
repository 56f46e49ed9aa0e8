"""Two regions, each a network of its own, and what both reach (see `networks` for the router between them).

10.81.1.0/24  regiona: nodes .11 .12 .13
10.81.2.0/24  regionb: nodes .11 .12 .13, and .66 for whoever does not belong there
10.81.9.0/24  outside: the upstream registry .11, the API server .12, the operator .13
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from tests.system.lab.capture import Packet
from tests.system.lab.namespaces import Namespace
from tests.system.lab.networks import Networks, networks

NETWORKS = {"regiona": "10.81.1.0/24", "regionb": "10.81.2.0/24", "outside": "10.81.9.0/24"}
REGIONS = ("regiona", "regionb")
HOSTS = {"regiona": (11, 12, 13), "regionb": (11, 12, 13, 66), "outside": (11, 12, 13)}
DELAY_SECONDS = 0.04  # of every packet from one region to the other


class Lans(Networks):
    """The networks of the two regions."""

    def nodes(self, region: str) -> list[Namespace]:
        """A region's three nodes."""
        return self.hosts[region][:3]

    @property
    def stranger(self) -> Namespace:
        """A host in regionb's network that belongs to no region."""
        return self.hosts["regionb"][3]

    @property
    def upstream(self) -> Namespace:
        """Where the registry is."""
        return self.hosts["outside"][0]

    @property
    def api_server(self) -> Namespace:
        """Where the control plane is."""
        return self.hosts["outside"][1]

    @property
    def operator(self) -> Namespace:
        """Where the test itself looks from."""
        return self.hosts["outside"][2]

    def crossings(self, mark: int) -> list[Packet]:
        """Packets since `mark` whose ends are in different regions."""
        return self.between(*REGIONS, mark)


@contextmanager
def lans(folder: Path) -> Iterator[Lans]:
    """The networks, with their router running; removed at the end."""
    with networks(folder, NETWORKS, HOSTS, held=REGIONS, delay_seconds=DELAY_SECONDS) as made:
        yield Lans(*(getattr(made, field.name) for field in fields(Networks)))
