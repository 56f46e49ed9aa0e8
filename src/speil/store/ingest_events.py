"""Delivers the events of ingests to any number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from speil.store.growing_content import IngestEnd, IngestRecord
from speil.store.ingests import IngestEvent, IngestEventKind

LISTENER_EVENTS_MAX = 1000  # undelivered events; above it they are replaced by a RESYNC


class IngestEvents:
    """A queue for each reader."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Queue[IngestEvent]] = []

    def send(self, kind: IngestEventKind, record: IngestRecord, end: IngestEnd | None = None) -> None:
        """Deliver an event about an ingest."""
        event = IngestEvent(kind, record.digest, record.size, record.total, end)
        for queue in self._listeners:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(IngestEvent(IngestEventKind.RESYNC))
            else:
                queue.put_nowait(event)

    async def read(self) -> AsyncIterator[IngestEvent]:
        """See `Ingests.events`."""
        queue: asyncio.Queue[IngestEvent] = asyncio.Queue(LISTENER_EVENTS_MAX)
        self._listeners.append(queue)
        try:
            yield IngestEvent(IngestEventKind.RESYNC)
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)
