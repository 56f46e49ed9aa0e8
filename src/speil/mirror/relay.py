"""One request, answered by peers: carries out what `fetch.transfer` decides.

The search for peers and the requests to them run beside each other, as children of the session; when the session
ends, whichever way, they have ended too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from speil.fetch.peer_health import PeerHealth
from speil.fetch.transfer import STALL_SECONDS_MAX, Abandon, Ask, GiveUp, Transfer
from speil.mirror.body import BodyResponse, BodySink
from speil.mirror.peer_client import Endpoint, PeerClient, PeerError, PeerResponse, RangeRefusedError
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci import media_type
from speil.oci.digest import Digest, DigestError
from speil.oci.endpoint import Content
from speil.routing.base import Router

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_FORWARDED_RANGE = re.compile(r"bytes=(?:[1-9]\d{0,18}-\d{0,19}|0-\d{1,19}|-[1-9]\d{0,18})", re.ASCII)

log = get_log("relay")


class NoPeerError(Exception):
    """No peer serves it; the message says how far it came."""

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason)
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Head:
    """The first good head: where the body starts and stops in a representation of `size` bytes."""

    status: int
    headers: dict[str, str]
    start: int
    stop: int
    size: int
    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What every session needs to know."""

    search_seconds: float
    attempts_max: int
    authorization: Callable[[], str]
    endpoints: Callable[[PeerInfo], list[Endpoint]]


class Relay:
    """Opens sessions; remembers peers between them."""

    def __init__(self, router: Router, client: PeerClient, metrics: Metrics, config: RelayConfig) -> None:
        self.router, self.client, self.metrics, self.config = router, client, metrics, config
        self.health = PeerHealth()

    def session(self, content: Content, method: str, range_header: str = "") -> RelaySession:
        """A session for one request; use it in `async with`."""
        forwarded = range_header if _FORWARDED_RANGE.fullmatch(range_header) and not content.is_manifest else ""
        return RelaySession(self, content, method, forwarded)


class RelaySession:
    """`head()` first, then `send()`."""

    def __init__(self, relay: Relay, content: Content, method: str, range_header: str) -> None:
        self._relay, self._content, self._method, self._range = relay, content, method, range_header
        self._transfer = Transfer(
            self._now(),
            search_seconds=relay.config.search_seconds,
            attempts_max=relay.config.attempts_max,
            hedge_seconds=relay.health.hedge_seconds,
        )
        self.broken_response: BodyResponse | None = None  # set once its head is out: it can then only break off
        self._head: Head | None = None
        self._response: PeerResponse | None = None
        self._peer: PeerInfo | None = None
        self._ready: list[tuple[PeerInfo, PeerResponse]] = []
        self._range_refused: RangeRefusedError | None = None
        self._asks: dict[PeerId, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._search: asyncio.Task[None]

    async def __aenter__(self) -> RelaySession:
        await self._group.__aenter__()
        self._search = self._group.create_task(self._run_search())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._search.cancel()
        for task in self._asks.values():
            task.cancel()
        self._let_go()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            for _, response in self._ready:
                response.close()

    @property
    def attempts(self) -> int:
        """Requests sent to peers so far."""
        return self._transfer.attempts_total

    @property
    def peer(self) -> PeerInfo | None:
        """Who serves, or served last."""
        return self._peer

    async def head(self) -> Head:
        """The first good head. Raises NoPeerError, RangeRefusedError."""
        if self._response is None:
            await self._wait_for_head()
        assert self._response is not None
        assert self._peer is not None
        start, stop, size = _extent(self._response)
        self._head = Head(self._response.status, self._response.headers, start, stop, size, self._peer)
        return self._head

    async def send(self, sink: BodySink) -> None:
        """Move the body to the client; a peer that breaks off is replaced.

        Raises NoPeerError when nobody can go on, ClientGoneError.
        """
        assert self._head is not None
        left = self._head.stop - self._head.start
        while left:
            assert self._response is not None
            try:
                size = await self._response.move(sink, STALL_SECONDS_MAX)
            except PeerError as error:
                await self._replace(error)
                continue
            left -= size
            self._transfer.received(size)
        self._transfer.finished()

    async def whole(self, size_bytes_max: int, is_right: Callable[[bytes], bool]) -> tuple[Head, bytes]:
        """A small body at once, from the first peer whose bytes are right. Raises NoPeerError."""
        while True:
            head = self._head or await self.head()
            try:
                data = await self._read_whole(size_bytes_max)
                if is_right(data):
                    self._transfer.finished()
                    return head, data
                error = PeerError("bad_answer", "the bytes are not what the digest says")
            except PeerError as failure:
                error = failure
            self._head = None
            await self._replace(error)

    async def _read_whole(self, size_bytes_max: int) -> bytes:
        assert self._response is not None
        if self._response.left > size_bytes_max:
            raise PeerError("bad_answer", f"{self._response.left} bytes")
        parts = []
        while data := await self._response.read(STALL_SECONDS_MAX):
            parts.append(data)
        return b"".join(parts)

    async def _replace(self, error: PeerError) -> None:
        assert self._peer is not None
        log.warning(
            "a peer broke off", key=self._content.key, peer=self._peer.peer_id, at=self._transfer.offset, error=error
        )
        self._relay.metrics.peer_requests.labels(error.outcome).inc()
        self._relay.health.failed(self._peer.peer_id, self._now())
        self._let_go()
        self._carry_out(self._transfer.broke(self._now()))
        await self._wait_for_head()
        self._relay.metrics.resumed_transfers.inc()

    # --- waiting for a head -----------------------------------------------------------------------------

    async def _wait_for_head(self) -> None:
        """Ask peers until one has answered well. Raises NoPeerError."""
        while True:
            self._changed.clear()
            if self._range_refused:
                raise self._range_refused
            if self._ready:
                self._take(*self._ready.pop(0))
                return
            health, now = self._relay.health, self._now()
            rank = {peer_id: health.rank(peer_id, now) for peer_id in self._transfer.candidate_ids}
            self._carry_out(self._transfer.decide(now, rank))
            deadline = self._transfer.next_deadline()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - self._now(), 0)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _take(self, peer: PeerInfo, response: PeerResponse) -> None:
        self._peer, self._response = peer, response
        self._carry_out(self._transfer.answered(peer.peer_id))
        for other, late in self._ready:
            self._relay.health.ended(other.peer_id)
            late.close()
        self._ready.clear()

    def _carry_out(self, actions: list[Ask | Abandon | GiveUp]) -> None:
        for action in actions:
            match action:
                case Ask(peer, offset):
                    self._asks[peer.peer_id] = self._group.create_task(self._ask(peer, offset))
                case Abandon(peer):
                    if task := self._asks.pop(peer.peer_id, None):
                        task.cancel()
                case GiveUp(reason):
                    raise NoPeerError(reason, self.attempts)

    async def _run_search(self) -> None:
        config = self._relay.config
        providers = self._relay.router.find_providers(self._content.key, timeout_seconds=config.search_seconds)
        async for peer in providers:
            self._transfer.found([peer])
            self._changed.set()
        self._transfer.search_ended()
        self._changed.set()

    async def _ask(self, peer: PeerInfo, offset: int) -> None:
        health, started = self._relay.health, self._now()
        health.started(peer.peer_id)
        try:
            response = await self._request(peer, offset)
        except PeerError as error:
            self._relay.metrics.peer_requests.labels(error.outcome).inc()
            log.debug(
                "a peer can't serve", key=self._content.key, peer=peer.peer_id, outcome=error.outcome, error=error
            )
            if isinstance(error, RangeRefusedError) and self._head is None:
                self._range_refused = error
            if error.blame:
                health.failed(peer.peer_id, self._now(), self._now() - started)
            health.ended(peer.peer_id)
            self._transfer.failed(peer.peer_id)
        except asyncio.CancelledError:
            health.ended(peer.peer_id)
            health.abandoned(self._now() - started)
            raise
        else:
            self._relay.metrics.peer_requests.labels("ok").inc()
            health.answered(peer.peer_id, self._now() - started)
            self._ready.append((peer, response))
        finally:
            self._asks.pop(peer.peer_id, None)
            self._changed.set()

    async def _request(self, peer: PeerInfo, offset: int) -> PeerResponse:
        """A checked head, from the first of the peer's addresses that takes the connection. Raises PeerError."""
        error = PeerError("refused", "it told no usable address")
        wanted = self._wanted_range(offset)
        for endpoint in self._relay.config.endpoints(peer):
            try:
                response = await self._relay.client.request(
                    self._method,
                    endpoint,
                    peer.peer_id,
                    self._content.target,
                    authorization=self._relay.config.authorization(),
                    range_header=wanted,
                )
            except PeerError as failure:
                error = failure
                if failure.outcome in ("refused", "timeout"):
                    continue
                raise
            try:
                self._check(response, offset)
            except PeerError:
                response.close()
                raise
            return response
        raise error

    def _wanted_range(self, offset: int) -> str:
        if offset and self._head:
            return f"bytes={self._head.start + offset}-{self._head.stop - 1}"
        return self._range

    def _check(self, response: PeerResponse, offset: int) -> None:
        """A head must be of this content, and go on exactly where we are. Raises PeerError."""
        digest = self._content.digest
        if digest and response.headers.get("docker-content-digest", str(digest)) != str(digest):
            raise PeerError("bad_answer", "another digest")
        if self._content.is_manifest and response.headers.get("content-type") not in media_type.MANIFESTS:
            raise PeerError("bad_answer", "a manifest without a manifest's type")
        if digest is None and not _is_digest(response.headers.get("docker-content-digest", "")):
            raise PeerError("bad_answer", "a tag without its digest")
        start, stop, size = _extent(response)
        if self._method == "GET" and response.left != stop - start:
            raise PeerError("bad_answer", "Content-Length and Content-Range disagree")
        if self._head and (start, stop, size) != (self._head.start + offset, self._head.stop, self._head.size):
            raise PeerError("bad_answer", f"bytes {start}-{stop}/{size}, not where we are")
        if self._range and response.status == 206 and not self._head and not _is_from(self._range, start):
            raise PeerError("bad_answer", f"bytes from {start} for {self._range}")

    def _let_go(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
            assert self._peer is not None
            self._relay.health.ended(self._peer.peer_id)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _extent(response: PeerResponse) -> tuple[int, int, int]:
    """(start, stop, size) of the bytes an answer holds. Raises PeerError."""
    if response.status == 200:
        size = int(response.headers["content-length"])
        return 0, size, size
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None:
        raise PeerError("bad_answer", "a 206 without Content-Range")
    first, last, size = (int(group) for group in match.groups())
    if not first <= last < size:
        raise PeerError("bad_answer", f"Content-Range {match[0]!r}")
    return first, last + 1, size


def _is_from(range_header: str, start: int) -> bool:
    first = range_header.removeprefix("bytes=").partition("-")[0]
    return not first or int(first) == start


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except DigestError:
        return False
    return True
