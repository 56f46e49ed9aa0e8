"""Puts the parts of sharing in flight together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from speil.inflight.downloads import Downloads
from speil.inflight.following import Following
from speil.inflight.others import OtherNodes
from speil.inflight.pulls import Pulls
from speil.inflight.series import InflightSeries
from speil.inflight.serving import Followers, Serving
from speil.inflight.settings import SharingSettings
from speil.inflight.transfers import transfers
from speil.observe.metrics import Metrics
from speil.routing.claim_network import ClaimNetwork
from speil.sources.base import Source
from speil.sources.build import Sources
from speil.store.base import ContentStore
from speil.store.ingests import Ingests
from speil.store.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Inflight:
    """Run it; `downloads` reads the store's news. `others`: after the store, for containerd; `serving`: for peers."""

    pulls: Pulls
    downloads: Downloads
    others: Source
    serving: Serving
    followers: Followers

    async def run(self) -> None:
        """Share what is downloaded, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pulls.run())
            group.create_task(self.downloads.run())

    def transfers(self) -> list[dict[str, Any]]:
        """For the debug page."""
        return transfers(self.pulls, self.followers)


def build_inflight(
    settings: SharingSettings,
    claims: ClaimNetwork | None,
    ingests: Ingests | None,
    store: ContentStore,
    sharing: Sharing,
    sources: Sources,
    metrics: Metrics,
) -> Inflight | None:
    """None where it is switched off, or where the router or the store takes no part."""
    if not settings.share_wait or claims is None or ingests is None:
        return None
    series = metrics.of(InflightSeries)
    downloads, followers = Downloads(ingests, store), Followers(series)
    pulls = downloads.pulls = Pulls(claims, settings.share_wait, series, downloads.look_at, followers.dismiss)
    following = Following(pulls, ingests, sources.access, sources.peers, series)
    others = OtherNodes(pulls, claims, sources.access, sources.peers, following)
    return Inflight(pulls, downloads, others, Serving(pulls, ingests, sources.own, sharing), followers)
