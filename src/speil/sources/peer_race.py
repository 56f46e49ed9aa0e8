"""The peers' side of one request: carries out what `fetch.transfer` decides.

The search for peers and the requests to them are child tasks of the race; when the race closes they have ended. `open`
returns the first good response, `resume` the response of another peer that continues at the same offset.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from speil.fetch.candidates import Judge, Nearness, Standing
from speil.fetch.peer_health import Failure
from speil.fetch.resume import Answer, ContradictionError, Extent, Wanted, WrongAnswerError
from speil.fetch.transfer import Abandon, Action, Ask, GiveUp, Refuse, Search, Stream, Transfer
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci.byte_range import UnsatisfiableError
from speil.oci.endpoint import Content
from speil.sources.base import Notes
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_client import PeerResponse
from speil.sources.peer_error import NoPeerError, Outcome, PeerError, RangeRefusedError

# A peer that is known without a search is asked first, and the search begins when it has not answered by then: earlier,
# its messages would delay the first byte by more than the peer takes. It begins at once where no known peer is asked.
KNOWN_FIRST_SECONDS = 0.05

log = get_log("relay")


@dataclass(slots=True)
class _Asking:
    peer: PeerInfo
    started: float
    task: asyncio.Task[None]


class PeerRace:
    """The only owner of the request's `Transfer`. Close it; `start` and `close` in one task."""

    def __init__(
        self,
        access: PeerAccess,
        content: Content,
        method: str,
        wanted: Wanted,
        judge: Judge,
        notes: Notes,
        among: tuple[PeerInfo, ...] = (),
        *,
        near_only: bool = False,
    ) -> None:
        """`method` is sent to the peers; `notes` gets the attempts and the serving peer.

        `among`: known holders; none: they are searched for. `near_only`: before something is promised, peers of other
        zones are asked only beside one of this zone.
        """
        self._among, self._near_only = among, near_only
        self._access, self._content, self._method = access, content, method
        self._judge, self._health, self._notes = judge, judge.health, notes
        self._transfer = Transfer(
            wanted,
            self._now(),
            search_seconds=access.config.search_seconds,
            attempts_max=access.config.attempts_max,
            hedge_seconds=judge.health.hedge_seconds,
        )
        self._peer: PeerInfo | None = None  # that serves, or served last
        self._response: PeerResponse | None = None
        self._served_since = 0.0
        self._refused_ranges: dict[int, UnsatisfiableError] = {}  # by the size that the peer states
        self._asking: dict[PeerId, _Asking] = {}
        self._changed = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._search: asyncio.Task[None] | None = None
        self._needed = asyncio.Event()  # the search begins
        self._closed = False

    async def start(self) -> None:
        """Make it ready for `open`."""
        await self._group.__aenter__()

    async def close(self) -> None:
        """End the search and all requests; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._search:
            self._search.cancel()
        for asking in self._asking.values():
            asking.task.cancel()
        self.let_go()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self.let_go()  # a response may have come while the tasks ended

    # --- the serving peer -------------------------------------------------------------------------------

    @property
    def peer(self) -> PeerInfo:
        """The peer that serves, or served last."""
        assert self._peer is not None
        return self._peer

    @property
    def response(self) -> PeerResponse:
        """Its response; between `open` or `resume` and `let_go`."""
        assert self._response is not None
        return self._response

    @property
    def promised(self) -> Extent:
        """The bytes that the first good response promised."""
        assert self._transfer.promised is not None
        return self._transfer.promised

    @property
    def left(self) -> int:
        """Promised bytes that were not received yet."""
        return self._transfer.left

    @property
    def asks_for_part(self) -> bool:
        """Whether peers are asked for a range of the content."""
        return bool(self._transfer.wanted.range_header)

    @property
    def far(self) -> tuple[PeerInfo, ...]:
        """The peers of other zones that were found and may be asked."""
        found = [peer for peer in self._transfer.candidates if self._is_far(peer.peer_id)]
        return tuple(peer for peer in found if self._standing(peer.peer_id) is not None)

    async def open(self) -> PeerResponse:
        """A response that continues at the current offset. Raises NoPeerError, UnsatisfiableError."""
        while self._response is None:
            self._changed.clear()
            allowed = self._near_standing if self._near_only and not self._has_near else self._standing
            self._carry_out(self._transfer.decide(self._now(), allowed))
            if not self._asking and not self._changed.is_set():
                self._needed.set()
            deadline = self._transfer.next_deadline()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - self._now(), 0)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return self._response

    async def resume(self, error: PeerError) -> PeerResponse:
        """The serving peer failed: another one's response, at the offset of what was received. Raises NoPeerError."""
        self.drop(error)
        return await self.open()

    def drop(self, error: PeerError) -> None:
        """The serving peer broke off, stalled, or sent wrong bytes; `open` finds another one."""
        now, key, peer = self._now(), self._content.key, self.peer
        # wrong bytes have a log line of their own
        write = log.debug if error.outcome is Outcome.BAD_ANSWER else log.warning
        write("a peer broke off", key=key, peer=peer.peer_id, at=self._transfer.offset, error=error)
        self._access.series.peer_requests.labels(error.outcome).inc()
        if error.failure is not Failure.GONE:
            self._health.broke(peer.peer_id, key, now)
            self._health.failed(peer.peer_id, Failure.BROKEN, now, seconds=now - self._served_since)
        self.let_go()
        self._transfer.broke(self._now())

    def start_over(self) -> None:
        """Nothing was passed on yet: `open` asks anew, and for all of the content."""
        self.let_go()
        self._transfer.start_over(self._now())

    def promise(self) -> None:
        """The client gets the head: what was promised must hold."""
        self._near_only = False
        self._transfer.committed()

    def received(self, size: int) -> None:
        """Body bytes of the serving peer were passed on."""
        self._transfer.received(size)

    def count(self, size: int) -> None:
        """Body bytes of the serving peer arrived."""
        self._access.count_bytes(self._judge.nearness(self.peer.peer_id), size)

    def finish(self) -> None:
        """The content is complete."""
        self.let_go()
        self._transfer.finished()

    def let_go(self) -> None:
        """Close the response."""
        if self._response is not None:
            self._response.close()
            self._response = None
            self._health.ended(self.peer.peer_id)

    # --- carrying out -----------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Search():
                    if known := self._access.known(self._content.key):
                        # at once: a task for them would cost two rounds of the event loop
                        self._transfer.found(known, self._now())
                        self._changed.set()
                    self._needed = asyncio.Event()
                    self._search = self._group.create_task(self._run_search(self._needed))
                case Ask(peer, range_header):
                    self._notes.attempts = self._transfer.attempts_total
                    task = self._group.create_task(self._ask(peer, range_header))
                    self._asking[peer.peer_id] = _Asking(peer, self._now(), task)
                case Abandon(peer):
                    self._abandon(peer)
                case GiveUp(reason):
                    if len(self._refused_ranges) == 1 and self._transfer.promised is None:
                        raise next(iter(self._refused_ranges.values()))
                    raise NoPeerError(reason)
                case Stream() | Refuse():
                    raise AssertionError("an answer's outcome, not a decision's")

    def _abandon(self, peer: PeerInfo) -> None:
        if asking := self._asking.pop(peer.peer_id, None):
            self._health.abandoned(peer.peer_id, self._now(), self._now() - asking.started)
            asking.task.cancel()

    async def _run_search(self, needed: asyncio.Event) -> None:
        self._transfer.found(self._among, self._now())
        if not self._among:
            with suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_FIRST_SECONDS):
                    await needed.wait()
            needed.set()
            async for peer in self._access.find(self._content.key):
                self._transfer.found([peer], self._now())
                self._changed.set()
        self._transfer.search_ended()
        self._changed.set()

    def _forgo_search(self) -> None:
        """A search that has not begun is not needed. Where the serving peer breaks off, there is another one."""
        if self._search and not self._needed.is_set():
            self._search.cancel()
            self._transfer.search_ended()

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
        """A head is there: the transfer decides whether it is good."""
        actions = self._transfer.answered(peer.peer_id, _answer(response, self._method))
        if not actions:  # it comes too late
            response.close()
            self._health.ended(peer.peer_id)
        for action in actions:
            match action:
                case Stream():
                    self._access.count_answer(peer, seconds)
                    self._peer, self._response, self._served_since = peer, response, self._now()
                    self._notes.peer = peer.peer_id
                    self._forgo_search()
                case Refuse(_, error):
                    response.close()
                    self._health.ended(peer.peer_id)
                    self._failed(peer, self._wrong(peer, error), seconds)
                case _:
                    self._carry_out([action])

    def _failed(self, peer: PeerInfo, error: PeerError, seconds: float) -> None:
        if isinstance(error, RangeRefusedError):
            try:
                self._transfer.wanted.check_refusal(error.size)
            except WrongAnswerError as wrong:
                error = self._wrong(peer, wrong)
        log.debug("a peer can't serve", key=self._content.key, peer=peer.peer_id, outcome=error.outcome, error=error)
        if isinstance(error, RangeRefusedError) and self._transfer.promised is None:
            # believed where no peer serves it, and all that refuse state the same size
            self._refused_ranges[error.size] = UnsatisfiableError(error.size)
        self._access.count_failure(peer, error, seconds)
        erred = error.failure in (Failure.WRONG, Failure.BROKEN)
        self._transfer.failed(peer.peer_id, self._now(), cheap=error.failure.was_quick, erred=erred)

    def _wrong(self, peer: PeerInfo, error: WrongAnswerError) -> PeerError:
        """The peer's fault, unless its answer only contradicts another peer or a manifest."""
        contradicts = isinstance(error, ContradictionError)
        if isinstance(error, ContradictionError) and error.size is not None and self._content.digest:
            sizes = self._access.knowledge.sizes
            sizes.contradict(self._content.digest, peer.peer_id, error.size, self._now())
        return PeerError(Outcome.BAD_ANSWER, str(error), failure=Failure.GONE if contradicts else None)

    @property
    def _has_near(self) -> bool:
        """Whether a peer that is not of another zone may serve."""
        near = (peer.peer_id for peer in self._transfer.candidates if not self._is_far(peer.peer_id))
        return any(self._standing(peer_id) is not None for peer_id in near)

    def _standing(self, peer_id: PeerId) -> Standing | None:
        return self._judge.standing(peer_id, self._now())

    def _near_standing(self, peer_id: PeerId) -> Standing | None:
        return None if self._is_far(peer_id) else self._standing(peer_id)

    def _is_far(self, peer_id: PeerId) -> bool:
        return self._judge.nearness(peer_id) is Nearness.OTHER_ZONE

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
