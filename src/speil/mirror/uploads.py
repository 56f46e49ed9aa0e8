"""Bodies to peers: who gets one, and how fast; the shell of `upload`.

A peer that is refused gets a 503 with the reason and goes elsewhere. containerd on this node is never refused and never
slowed down: the bounds are there to protect its pulls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from speil.mirror.settings import MirrorSettings
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.upload.admission import Admission, Refusal
from speil.upload.pace import Pace, Turn

BUSY_HEADER = "X-Speil-Busy"  # the reason; a body would cost the peer its connection
RETRY_AFTER_SECONDS = 1  # by then a place is likely free: a layer takes about that long
WARN_SECONDS = 60.0  # between two lines about refusals

log = get_log("uploads")


def busy(reason: str) -> web.Response:
    """The answer to a peer that has to go elsewhere."""
    return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS), BUSY_HEADER: reason})


class Uploads:
    """Places and turns; `peer` is the address a request comes from."""

    def __init__(self, settings: MirrorSettings, metrics: Metrics) -> None:
        self._metrics, self._limit = metrics, settings.upload_limit
        self._admission = Admission(settings.uploads_max, settings.uploads_per_peer_max, settings.upload_limit)
        self._pace: Pace | None = None
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._warn_after = 0.0

    @property
    def open_count(self) -> int:
        """Bodies being sent to peers."""
        return self._admission.open_count

    @contextmanager
    def place(self, peer: str) -> Iterator[Refusal | None]:
        """A place for one body while the context lasts; or why there is none."""
        if (refusal := self._admission.admit(peer)) is not None:
            self.refused(refusal, peer)
            yield refusal
            return
        self._metrics.open_uploads.set(self.open_count)
        try:
            yield None
        finally:
            self._admission.release(peer)
            self._metrics.open_uploads.set(self.open_count)

    def refused(self, reason: str, peer: str) -> None:
        """Count a peer that was sent elsewhere; the log tells of it now and then."""
        self._metrics.refused_uploads.labels(reason).inc()
        now = asyncio.get_running_loop().time()
        if now >= self._warn_after:
            self._warn_after = now + WARN_SECONDS
            log.warning("peers are sent elsewhere", reason=reason, peer=peer, open_uploads=self.open_count)

    async def turn(self, peer: str, size: int) -> int:
        """How many bytes may be sent now: waits where there is a limit, `size` at once where there is none."""
        if not self._limit:
            return size
        loop = asyncio.get_running_loop()
        started = loop.time()
        if self._pace is None:
            self._pace = Pace(self._limit, started)
        turn = self._pace.ask(peer, size, self.open_count)
        granted = self._turns[turn.number] = loop.create_future()
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            self._leave(turn, granted)
            raise
        finally:
            self._turns.pop(turn.number, None)
            self._metrics.throttled_seconds.inc(loop.time() - started)
        return turn.size

    def give_back(self, size: int) -> None:
        """Bytes of a turn that were not sent."""
        if self._pace is not None and size > 0:
            self._pace.give_back(size)

    def _leave(self, turn: Turn, granted: asyncio.Future[None]) -> None:
        assert self._pace is not None
        if granted.done() and not granted.cancelled():
            self._pace.give_back(turn.size)
        else:
            self._pace.withdraw(turn)
        self._turns.pop(turn.number, None)
        self._grant()

    def _grant(self) -> None:
        assert self._pace is not None
        loop = asyncio.get_running_loop()
        while granted := self._pace.grant(loop.time()):
            unclaimed = 0
            for turn in granted:
                waiter = self._turns.get(turn.number)
                if waiter is None or waiter.done():
                    unclaimed += turn.size  # whoever asked was cancelled, and has not come round to withdraw
                else:
                    waiter.set_result(None)
            if not unclaimed:
                break
            self._pace.give_back(unclaimed)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._pace.next_deadline()
        self._timer = loop.call_at(deadline, self._grant) if deadline is not None else None
