"""An ingest that is open for reading. Its adapter reports size, growth and end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from enum import StrEnum

from speil.oci.digest import Digest

Changed = Callable[[], None]


class IngestEnd(StrEnum):
    """Why an ingest grows no more."""

    COMMITTED = "committed"  # the content is complete and verified; the descriptor has all of it
    GONE = "gone"  # it was deleted: the download was cancelled or failed, or the digest was wrong
    SHRUNK = "shrunk"  # the runtime began again from an earlier byte


class IngestEndedError(Exception):
    """The bytes that a reader waits for will not come from this ingest; `end` says why."""

    def __init__(self, end: IngestEnd) -> None:
        super().__init__(f"the ingest is {end}")
        self.end = end


class AbandonedError(Exception):
    """Nobody waits for more bytes of this ingest; see GrowingContent.abandon."""

    def __init__(self) -> None:
        super().__init__("the node does not download it now")


class IngestRecord:
    """One ingest. Its adapter calls `grew` and `ended`; they call back the readers that watch it."""

    def __init__(self, digest: Digest, total: int | None, size: int, grew_at: float) -> None:
        """`grew_at` is loop time."""
        self.digest, self.total, self.size, self.grew_at = digest, total, size, grew_at
        self.end: IngestEnd | None = None
        self.readers: dict[GrowingContent, None] = {}

    def grew(self, size: int, now: float) -> None:
        """It has `size` bytes now, more than before."""
        self.size, self.grew_at = size, now
        self._changed()

    def ended(self, end: IngestEnd, size: int) -> None:
        """It grows no more, at `size` bytes. For COMMITTED, the descriptors of the readers have all of them."""
        self.end, self.size = end, size
        self._changed()

    def _changed(self) -> None:
        for reader in list(self.readers):
            reader.changed()


class GrowingContent:
    """A descriptor of an ingest. `total` is the size that it will have. The receiver closes it."""

    def __init__(self, record: IngestRecord, fd: int, total: int, closed: Changed) -> None:
        """`closed` is called once, by `close`."""
        self.digest, self.fd, self.total = record.digest, fd, total
        self._record, self._closed = record, closed
        self._callbacks: list[Changed] = []
        self._is_abandoned = False
        record.readers[self] = None

    @property
    def size(self) -> int:
        """Bytes that are there now."""
        return min(self._record.size, self.total)

    @property
    def end(self) -> IngestEnd | None:
        """Why it grows no more; None while it may grow."""
        return self._record.end

    @property
    def grew_at(self) -> float:
        """When it grew last, as loop time."""
        return self._record.grew_at

    @property
    def broken(self) -> IngestEndedError | AbandonedError | None:
        """The error for a reader that needs more than `size` bytes; None while they may come."""
        if self._is_abandoned:
            return AbandonedError()
        end = self.end
        return None if end is None or end is IngestEnd.COMMITTED else IngestEndedError(end)

    async def wait(self, more_than: int, timeout_seconds: float) -> int:
        """Wait until there are more than `more_than` bytes. Returns `size`, which is no larger after the timeout.

        Raises IngestEndedError, AbandonedError.
        """
        await self._until(lambda: self.size > more_than or self.end is not None or self._is_abandoned, timeout_seconds)
        if self.size <= more_than and self.broken is not None:
            raise self.broken
        return self.size

    async def ended(self, timeout_seconds: float) -> IngestEnd | None:
        """Wait for its end; None after the timeout."""
        await self._until(lambda: self.end is not None, timeout_seconds)
        return self.end

    def watch(self, callback: Changed) -> None:
        """Call `callback` at each change, until `unwatch`."""
        self._callbacks.append(callback)

    def unwatch(self, callback: Changed) -> None:
        """End a `watch`; one that has ended is ignored."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def changed(self) -> None:
        """Call back those who watch: for the record."""
        for callback in list(self._callbacks):
            callback()

    def abandon(self) -> None:
        """`broken` from now on: nobody waits for more bytes of it."""
        self._is_abandoned = True
        self.changed()

    def replace_file(self, fd: int) -> None:
        """Read from the file of another descriptor from now on: the same content, committed by another download."""
        os.dup2(fd, self.fd, inheritable=False)

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._record.readers.pop(self, None)
            self._closed()

    async def _until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        changed = asyncio.Event()
        self.watch(changed.set)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            self.unwatch(changed.set)
