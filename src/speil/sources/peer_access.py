"""How peers are found and reached: each peer has several addresses, and each response counts for its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from speil.fetch.candidates import Judge, Nearness
from speil.fetch.settings import FetchSettings
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.fetch.trust import NO_CAUTION, Caution
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci.endpoint import Content
from speil.routing.base import Router
from speil.sources.peer_client import PeerClient, PeerResponse
from speil.sources.peer_error import Outcome, PeerBusyError, PeerError
from speil.sources.peer_knowledge import PeerKnowledge
from speil.sources.series import SourcesSeries
from speil.wire.connection_pool import Endpoint

_RELATIONS = {Nearness.SAME_ZONE: "same", Nearness.OTHER_ZONE: "other", Nearness.UNKNOWN: "unknown"}

log = get_log("relay")


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """Settings of the requests to peers."""

    search_seconds: float  # how long to look for a first peer before the client is sent upstream
    attempts_max: int  # peers that may fail, or be waited for at once; a quick refusal does not count
    endpoints: Callable[[PeerInfo], list[Endpoint]]  # where a peer's registry listens, tried in this order
    fetch: FetchSettings
    zone: str  # this node's, "" for none


class PeerAccess:
    """Requests to peers; `knowledge` learns from each of them."""

    def __init__(
        self, router: Router, client: PeerClient, knowledge: PeerKnowledge, config: PeerConfig, series: SourcesSeries
    ) -> None:
        self._router, self._client = router, client
        self.knowledge, self.config, self.series = knowledge, config, series

    def judge(self, caution: Caution = NO_CAUTION, *, verified: bool, key: str) -> Judge:
        """Ranks peers for one request for the content named `key`."""
        known = self.knowledge
        return Judge(known.health, known.trust, caution, self.config.zone, known.zone_of, verified, key)

    def known(self, key: str) -> list[PeerInfo]:
        """Peers that announced `key`, as far as this node knows without asking others."""
        try:
            found = self._router.known_providers(key)
        except Exception as error:  # see `find`
            log.exception("the search for peers failed", error, key=key)
            return []
        for peer in found:
            self.knowledge.record_zone(peer.peer_id, peer.zone)
        return found

    async def find(self, key: str) -> AsyncIterator[PeerInfo]:
        """Peers that announced `key`, as they are found. A search that fails is logged and ends.

        It takes longer than a request waits for its first peer: more peers may be of use after that.
        """
        try:
            async for peer in self._router.find_providers(key, timeout_seconds=FIRST_BYTE_SECONDS_MAX):
                self.knowledge.record_zone(peer.peer_id, peer.zone)
                yield peer
        except Exception as error:  # a bug in the routing must not break a body that is being sent
            log.exception("the search for peers failed", error, key=key)

    async def request(
        self, method: str, peer: PeerInfo, target: str, range_header: str = "", *, follows: bool = False
    ) -> PeerResponse:
        """A response, from the first of the peer's addresses that takes the connection. Raises PeerError.

        `follows`: content that the peer is downloading will do. The caller counts the result for the peer's health:
        `request_head` does both.
        """
        error = PeerError(Outcome.REFUSED, "it announced no usable address")
        for endpoint in self.config.endpoints(peer):
            try:
                response = await self._client.request(
                    method, endpoint, peer.peer_id, target, range_header, follows=follows
                )
            except PeerError as failure:
                error = failure
                if failure.outcome not in (Outcome.REFUSED, Outcome.TIMEOUT):
                    raise
            else:
                if zone := response.headers.get("x-speil-zone"):
                    self.knowledge.stated_zone(peer.peer_id, zone)
                return response
        raise error

    async def request_head(self, content: Content, peer: PeerInfo, seconds_max: float) -> dict[str, str]:
        """The headers of one peer's response to HEAD, names in lower case. Raises PeerError."""
        health, now = self.knowledge.health, asyncio.get_running_loop().time
        started = now()
        health.started(peer.peer_id)
        try:
            async with asyncio.timeout(seconds_max):
                response = await self.request("HEAD", peer, content.target)
            response.close()
            if response.status != 200:
                raise PeerError(Outcome.BAD_ANSWER, f"status {response.status} to a HEAD without a range")
        except TimeoutError as timeout:
            error = PeerError(Outcome.TIMEOUT, f"no answer in {seconds_max:g} s")
            self.count_failure(peer, error, now() - started)
            raise error from timeout
        except PeerError as error:
            self.count_failure(peer, error, now() - started)
            raise
        else:
            self.count_answer(peer, now() - started)
            return response.headers
        finally:
            health.ended(peer.peer_id)

    def count_answer(self, peer: PeerInfo, seconds: float) -> None:
        """A good head came after `seconds`."""
        self.series.peer_requests.labels(Outcome.OK).inc()
        self.knowledge.health.answered(peer.peer_id, seconds)

    def count_failure(self, peer: PeerInfo, error: PeerError, seconds: float) -> None:
        """A request failed `seconds` after it began."""
        self.series.peer_requests.labels(error.outcome).inc()
        busy_seconds = error.retry_after_seconds if isinstance(error, PeerBusyError) else 0.0
        now = asyncio.get_running_loop().time()
        self.knowledge.health.failed(peer.peer_id, error.failure, now, seconds=seconds, busy_seconds=busy_seconds)

    def count_bytes(self, nearness: Nearness, size: int) -> None:
        """Body bytes came from a peer."""
        self.series.peer_bytes.labels(_RELATIONS[nearness] if self.config.zone else "unknown").inc(size)
