"""Makes the bootstrapper that the settings name."""

from __future__ import annotations

from random import Random

from speil.election.settings import ElectionSettings
from speil.lease.build import build_lease, owner_of
from speil.observe.metrics import Metrics
from speil.region.identity import RegionIdentity
from speil.region.policy import Network
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.settings import RouterSettings


def build_bootstrapper(
    settings: RouterSettings,
    election: ElectionSettings,
    identity: RegionIdentity,
    networks: tuple[Network, ...],
    metrics: Metrics,
    rng: Random,
) -> Bootstrapper:
    """The bootstrapper, not yet running. `networks` are the region's. Raises SettingError."""
    kind = settings.bootstrap_kind
    if not settings.is_leased:
        return settings.bootstrapper()
    return LeaseBootstrapper(
        kind,
        build_lease(kind, election, identity),
        election.timings(),
        owner_of(kind, identity),
        metrics,
        rng,
        networks=networks,
    )
