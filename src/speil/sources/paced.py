"""The serving peer's body, with an eye on its speed: `fetch.pace` decides when it is too slow."""

from __future__ import annotations

from speil.fetch.pace import BodyPace
from speil.sources.peer_error import Outcome, PeerError
from speil.sources.peer_race import PeerRace
from speil.wire.sink import Sink


class PacedBody:
    """The body of `race.response`, as long as that peer serves."""

    def __init__(self, race: PeerRace, pace: BodyPace) -> None:
        self._race, self._response, self._pace = race, race.response, pace

    async def read(self) -> bytes:
        """The next bytes, into memory; empty at the end. Raises PeerError."""
        waited = self._response.peer_seconds
        data = await self._response.read(self._patience())
        self._came(len(data), waited)
        return data

    async def move(self, sink: Sink) -> int:
        """Move the next bytes to the client; how many. Raises PeerError, ClientGoneError."""
        waited = self._response.peer_seconds
        size = await self._response.move(sink, self._patience())
        self._came(size, waited)
        return size

    def _patience(self) -> float:
        """How many seconds to wait now. Raises PeerError when the peer's time is up."""
        if (seconds := self._pace.wait_seconds) <= 0:
            raise PeerError(Outcome.TIMEOUT, self._pace.complaint)
        return seconds

    def _came(self, size: int, waited_before: float) -> None:
        self._pace.came(size, self._response.peer_seconds - waited_before)
        self._race.count(size)
