"""The peers' side of one request: carries out what `fetch.transfer` decides.

The search for peers and the requests to them run beside each other, as children of the race; when it ends, whichever
way, they have ended too. `next` gives the response whose body goes on where the client is; what is done with the body
is the session's business (`mirror.relay_session`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from speil.fetch.candidates import Judge, Nearness
from speil.fetch.known_sizes import KnownSizes
from speil.fetch.peer_health import Failure
from speil.fetch.resume import Answer, ContradictionError, WrongAnswerError
from speil.fetch.transfer import (
    FIRST_BYTE_SECONDS_MAX,
    Abandon,
    Action,
    Ask,
    GiveUp,
    Refuse,
    Search,
    Stream,
    Transfer,
)
from speil.mirror.peer_client import Endpoint, PeerBusyError, PeerClient, PeerError, PeerResponse, RangeRefusedError
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci.endpoint import Content
from speil.routing.base import Router

FAILURES = {
    "not_found": Failure.GONE,
    "busy": Failure.BUSY,
    "refused": Failure.REFUSED,
    "timeout": Failure.SILENT,
    "broken": Failure.BROKEN,
    "bad_answer": Failure.WRONG,
    "range": Failure.GONE,
    "own_limit": Failure.GONE,  # we are out of descriptors: not its doing
}
_RELATIONS = {Nearness.SAME_ZONE: "same", Nearness.OTHER_ZONE: "other", Nearness.UNKNOWN: "unknown"}

log = get_log("relay")


class NoPeerError(Exception):
    """No peer serves it; the message says how far it came."""

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason)
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """How peers are reached."""

    router: Router
    client: PeerClient
    metrics: Metrics
    endpoints: Callable[[PeerInfo], list[Endpoint]]
    told_zone: Callable[[PeerId, str], None]  # hears of the zone that an answer names
    heard_zone: Callable[[PeerId, str], None]  # and of the one that whoever named the peer says it is in

    async def request(self, method: str, peer: PeerInfo, target: str, range_header: str = "") -> PeerResponse:
        """A head, from the first of the peer's addresses that takes the connection. Raises PeerError."""
        error = PeerError("refused", "it told no usable address")
        for endpoint in self.endpoints(peer):
            try:
                return await self.client.request(method, endpoint, peer.peer_id, target, range_header)
            except PeerError as failure:
                error = failure
                if failure.outcome not in ("refused", "timeout"):
                    raise
        raise error


@dataclass(slots=True)
class _Asking:
    peer: PeerInfo
    started: float
    task: asyncio.Task[None]


class PeerRace:
    """Use it in `async with`; `next`, then `replace` after each break."""

    def __init__(
        self,
        access: PeerAccess,
        content: Content,
        method: str,
        transfer: Transfer,
        judge: Judge,
        sizes: KnownSizes,
    ) -> None:
        self._access, self._content, self._method, self._sizes = access, content, method, sizes
        self.transfer, self._judge, self._health = transfer, judge, judge.health
        self.peer: PeerInfo | None = None  # who serves, or served last
        self.response: PeerResponse | None = None
        self._served_since = 0.0
        self._range_refused: dict[str, RangeRefusedError] = {}  # by the size that it tells
        self._asking: dict[PeerId, _Asking] = {}
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._search: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PeerRace:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._search:
            self._search.cancel()
        for asking in self._asking.values():
            asking.task.cancel()
        self.let_go()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self.let_go()  # an answer may have come while the tasks ended

    async def next(self) -> PeerResponse:
        """The response that goes on where we are. Raises NoPeerError, RangeRefusedError."""
        while self.response is None:
            self._changed.clear()
            self._carry_out(self.transfer.decide(self._now(), lambda one: self._judge.standing(one, self._now())))
            deadline = self.transfer.next_deadline()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - self._now(), 0)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return self.response

    def replace(self, error: PeerError) -> None:
        """The serving peer broke off, stalled, or sent wrong bytes: `next` gives another."""
        assert self.peer is not None
        now, key = self._now(), self._content.key
        # wrong bytes have a line of their own
        write = log.debug if error.outcome == "bad_answer" else log.warning
        write("a peer broke off", key=key, peer=self.peer.peer_id, at=self.transfer.offset, error=error)
        self._access.metrics.peer_requests.labels(error.outcome).inc()
        if error.blame:
            self._health.broke(self.peer.peer_id, key, now)
            self._health.failed(self.peer.peer_id, Failure.BROKEN, now, seconds=now - self._served_since)
        self.let_go()
        self.transfer.broke(self._now())

    def let_go(self) -> None:
        """Done with the response."""
        if self.response is not None:
            assert self.peer is not None
            self.response.close()
            self.response = None
            self._health.ended(self.peer.peer_id)

    def count(self, size: int) -> None:
        """Bytes of the serving peer came."""
        assert self.peer is not None
        relation = _RELATIONS[self._judge.nearness(self.peer.peer_id)] if self._judge.zone else "unknown"
        self._access.metrics.peer_bytes.labels(relation).inc(size)

    # --- carrying out -----------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Search():
                    self._search = self._group.create_task(self._run_search())
                case Ask(peer, range_header):
                    task = self._group.create_task(self._ask(peer, range_header))
                    self._asking[peer.peer_id] = _Asking(peer, self._now(), task)
                case Abandon(peer):
                    self._abandon(peer)
                case GiveUp(reason):
                    if len(self._range_refused) == 1 and self.transfer.promised is None:
                        raise next(iter(self._range_refused.values()))
                    raise NoPeerError(reason, self.transfer.attempts_total)
                case Stream() | Refuse():
                    raise AssertionError("an answer's outcome, not a decision's")

    def _abandon(self, peer: PeerInfo) -> None:
        if asking := self._asking.pop(peer.peer_id, None):
            self._health.abandoned(peer.peer_id, self._now(), self._now() - asking.started)
            asking.task.cancel()

    async def _run_search(self) -> None:
        # longer than anyone waits for a first peer: once one is known, others may still be of use
        providers = self._access.router.find_providers(self._content.key, timeout_seconds=FIRST_BYTE_SECONDS_MAX)
        async for peer in providers:
            self._access.heard_zone(peer.peer_id, peer.zone)
            self.transfer.found([peer], self._now())
            self._changed.set()
        self.transfer.search_ended()
        self._changed.set()

    async def _ask(self, peer: PeerInfo, range_header: str) -> None:
        started = self._now()
        self._health.started(peer.peer_id)
        try:
            response = await self._access.request(self._method, peer, self._content.target, range_header)
        except PeerError as error:
            self._health.ended(peer.peer_id)
            self._failed(peer, error, self._now() - started)
        except BaseException:
            self._health.ended(peer.peer_id)
            raise
        else:
            self._answered(peer, response, self._now() - started)
        finally:
            self._asking.pop(peer.peer_id, None)
            self._changed.set()

    def _answered(self, peer: PeerInfo, response: PeerResponse, seconds: float) -> None:
        """A head is there: what the machine makes of it."""
        if zone := response.headers.get("x-speil-zone"):
            self._access.told_zone(peer.peer_id, zone)
        actions = self.transfer.answered(peer.peer_id, _answer(response, self._method))
        if not actions:  # it comes too late
            response.close()
            self._health.ended(peer.peer_id)
        for action in actions:
            match action:
                case Stream():
                    self._access.metrics.peer_requests.labels("ok").inc()
                    self._health.answered(peer.peer_id, seconds)
                    self.peer, self.response, self._served_since = peer, response, self._now()
                case Refuse(_, error):
                    response.close()
                    self._health.ended(peer.peer_id)
                    self._failed(peer, self._wrong(peer, error), seconds)
                case _:
                    self._carry_out([action])

    def _failed(self, peer: PeerInfo, error: PeerError, seconds: float) -> None:
        if isinstance(error, RangeRefusedError):
            try:
                self.transfer.wanted.check_refusal(error.content_range)
            except WrongAnswerError as wrong:
                error = self._wrong(peer, wrong)
        self._access.metrics.peer_requests.labels(error.outcome).inc()
        log.debug("a peer can't serve", key=self._content.key, peer=peer.peer_id, outcome=error.outcome, error=error)
        if isinstance(error, RangeRefusedError) and self.transfer.promised is None:
            # believed when nobody serves it, and all who refuse tell the same size
            self._range_refused[error.content_range] = error
        failure = FAILURES.get(error.outcome, Failure.BROKEN)
        if failure is Failure.WRONG and not error.blame:
            failure = Failure.GONE
        busy_seconds = error.retry_after_seconds if isinstance(error, PeerBusyError) else 0.0
        self._health.failed(peer.peer_id, failure, self._now(), seconds=seconds, busy_seconds=busy_seconds)
        erred = failure in (Failure.WRONG, Failure.BROKEN)
        self.transfer.failed(peer.peer_id, self._now(), cheap=failure.was_quick, erred=erred)

    def _wrong(self, peer: PeerInfo, error: WrongAnswerError) -> PeerError:
        """The peer is to blame, unless it only contradicts somebody else."""
        contradicts = isinstance(error, ContradictionError)
        if isinstance(error, ContradictionError) and error.size is not None and self._content.digest:
            self._sizes.contradict(self._content.digest, peer.peer_id, error.size, self._now())
        return PeerError("bad_answer", str(error), blame=not contradicts)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _answer(response: PeerResponse, method: str) -> Answer:
    headers = response.headers
    length = int(headers["content-length"]) if method == "HEAD" else response.left
    return Answer(
        response.status,
        length,
        headers.get("content-range", ""),
        headers.get("docker-content-digest", ""),
    )
