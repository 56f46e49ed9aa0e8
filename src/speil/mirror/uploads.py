"""Bodies to peers: how many at once, and how fast; the shell of `upload`.

A peer that is refused gets a 503 with the reason and asks elsewhere. containerd on this node is never refused and never
slowed down: the bounds protect its pulls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from speil.mirror.series import MirrorSeries
from speil.mirror.settings import MirrorSettings
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.upload.admission import FairAdmission, Refusal
from speil.upload.pace import Turn, UploadPace
from speil.wire.sink import Pacing

log = get_log("uploads")


class Uploads:
    """Admission and turns; `peer` is the address that a request comes from."""

    def __init__(self, settings: MirrorSettings, series: MirrorSeries) -> None:
        self._series, self._limit = series, settings.upload_limit
        self._admission = FairAdmission(settings.uploads_max, settings.uploads_per_peer_max, settings.upload_limit)
        self._pace: UploadPace | None = None
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = Seldom()

    @property
    def open_count(self) -> int:
        """Bodies being sent to peers."""
        return self._admission.open_count

    @contextmanager
    def admit(self, peer: str) -> Iterator[Refusal | None]:
        """Count one body to `peer` while the context lasts; or the reason why it is refused."""
        if (refusal := self._admission.admit(peer)) is not None:
            self.refused(refusal, peer)
            yield refusal
            return
        self._series.open_uploads.set(self.open_count)
        try:
            yield None
        finally:
            self._admission.release(peer)
            self._series.open_uploads.set(self.open_count)

    def refused(self, reason: str, peer: str) -> None:
        """Count a peer that was sent elsewhere; log it once in a while."""
        self._series.refused_uploads.labels(reason).inc()
        if self._refusals.due(""):
            log.warning("peers are sent elsewhere", reason=reason, peer=peer, open_uploads=self.open_count)

    def pacing(self, peer: str) -> Pacing:
        """The speed of one body to `peer`."""
        return _Pacing(self, peer)

    @property
    def is_limited(self) -> bool:
        """Whether there is an upload limit."""
        return bool(self._limit)

    async def turn(self, peer: str, size: int) -> int:
        """How many of `size` bytes may be sent now; waits where there is a limit."""
        if not self._limit:
            return size
        loop = asyncio.get_running_loop()
        started = loop.time()
        if self._pace is None:
            self._pace = UploadPace(self._limit, started)
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
            self._series.throttled_seconds.inc(loop.time() - started)
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
                    unclaimed += turn.size  # the caller was cancelled, and has not withdrawn yet
                else:
                    waiter.set_result(None)
            if not unclaimed:
                break
            self._pace.give_back(unclaimed)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._pace.next_deadline()
        self._timer = loop.call_at(deadline, self._grant) if deadline is not None else None


class _Pacing:
    """See Pacing."""

    def __init__(self, uploads: Uploads, peer: str) -> None:
        self._uploads, self._peer = uploads, peer

    @property
    def is_limited(self) -> bool:
        return self._uploads.is_limited

    async def turn(self, size: int) -> int:
        return await self._uploads.turn(self._peer, size)

    def give_back(self, size: int) -> None:
        self._uploads.give_back(size)
