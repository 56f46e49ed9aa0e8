"""What requests to peers have in common: how peers are reached, and what is remembered of them.

Each request is a session of its own (`mirror.relay_session`) with a race of peers (`mirror.peer_race`).
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from speil.fetch.known_sizes import KnownSizes
from speil.fetch.peer_health import Failure, PeerHealth
from speil.fetch.settings import FetchSettings
from speil.fetch.trust import BAN_SECONDS, PeerTrust
from speil.mirror.peer_client import Endpoint, PeerBusyError, PeerClient, PeerError
from speil.mirror.peer_race import FAILURES, NoPeerError, PeerAccess
from speil.mirror.relay_session import Head, RelaySession
from speil.mirror.verified import VerifiedContent
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci.endpoint import Content
from speil.region.label import is_label
from speil.routing.base import Router

__all__ = ["Head", "NoPeerError", "Relay", "RelayConfig", "RelaySession"]

ZONES_TOLD_MAX = 1000
# what a client may ask a peer for through us; `bytes=0-` is all (oci.byte_range says why)
_FORWARDED_RANGE = re.compile(r"bytes=(?:[1-9]\d{0,18}-\d{0,19}|0-\d{1,19}|-[1-9]\d{0,18})", re.ASCII)

log = get_log("relay")


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What every session needs to know; `zone` is this node's."""

    search_seconds: float
    attempts_max: int
    authorization: Callable[[], str]
    endpoints: Callable[[PeerInfo], list[Endpoint]]
    fetch: FetchSettings
    zone: str


class Relay:
    """Opens sessions; remembers peers between them."""

    def __init__(self, router: Router, client: PeerClient, metrics: Metrics, config: RelayConfig) -> None:
        self.router, self.metrics, self.config = router, metrics, config
        self.health, self.trust, self.sizes = PeerHealth(), PeerTrust(), KnownSizes()
        self.access = PeerAccess(
            router, client, metrics, config.authorization, config.endpoints, self._told_zone, self._heard_zone
        )
        self.verified = VerifiedContent(config.fetch.verify_memory_max)
        self._zones_told: OrderedDict[PeerId, str] = OrderedDict()

    def session(self, content: Content, method: str, range_header: str = "", *, verifies: bool = False) -> RelaySession:
        """A session for one request; use it in `async with`.

        `verifies`: the client checks what it gets and keeps it, so that its asking again tells something: containerd.
        """
        forwarded = range_header if _FORWARDED_RANGE.fullmatch(range_header) and not content.is_manifest else ""
        return RelaySession(self, content, method, forwarded, verifies)

    async def ask_head(self, content: Content, peer: PeerInfo, seconds_max: float) -> dict[str, str]:
        """One peer's headers for content, by HEAD; what came of it counts for the peer's health. Raises PeerError."""
        now = asyncio.get_running_loop().time
        started = now()
        self.health.started(peer.peer_id)
        try:
            async with asyncio.timeout(seconds_max):
                response = await self.access.request("HEAD", peer, content.target)
            response.close()
            if response.status != 200:
                raise PeerError("bad_answer", f"status {response.status} to a HEAD without a range")
        except (PeerError, TimeoutError) as failure:
            error = (
                failure if isinstance(failure, PeerError) else PeerError("timeout", f"no answer in {seconds_max:g} s")
            )
            self.metrics.peer_requests.labels(error.outcome).inc()
            busy = error.retry_after_seconds if isinstance(error, PeerBusyError) else 0.0
            kind = FAILURES.get(error.outcome, Failure.BROKEN)
            self.health.failed(peer.peer_id, kind, now(), seconds=now() - started, busy_seconds=busy)
            raise error from failure
        else:
            self.metrics.peer_requests.labels("ok").inc()
            self.health.answered(peer.peer_id, now() - started)
            if zone := response.headers.get("x-speil-zone"):
                self._told_zone(peer.peer_id, zone)
            return response.headers
        finally:
            self.health.ended(peer.peer_id)

    def zone_of(self, peer_id: PeerId) -> str:
        """A peer's zone, "" where nobody has told it: libp2p's identify has, or an answer of its own."""
        return self.router.zone_of(peer_id) or self._zones_told.get(peer_id, "")

    def _told_zone(self, peer_id: PeerId, zone: str) -> None:
        if is_label(zone):
            self._zones_told[peer_id] = zone
            self._zones_told.move_to_end(peer_id)
            if len(self._zones_told) > ZONES_TOLD_MAX:
                self._zones_told.popitem(last=False)

    def _heard_zone(self, peer_id: PeerId, zone: str) -> None:
        if not self.zone_of(peer_id):  # hearsay counts until the peer itself has said something
            self._told_zone(peer_id, zone)

    def lied(self, peer: PeerInfo, key: str) -> None:
        """A peer was caught with wrong bytes."""
        self.trust.lied(peer.peer_id, asyncio.get_running_loop().time())
        self.metrics.peer_bans.inc()
        hosts = ", ".join(peer.hosts)
        log.warning("a peer sent wrong bytes: banned", key=key, peer=peer.peer_id, hosts=hosts, seconds=BAN_SECONDS)
