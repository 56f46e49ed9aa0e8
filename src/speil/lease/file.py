"""A Lease in a file, for processes on one machine: `--bootstrap-kind file`, and the demo.

The file has the same JSON as the API. A write holds an exclusive lock on a file beside it, compares the version, and
renames a new file over the old one. So a reader needs no lock, and sees the old Lease or the new one. The age comes
from the file's modification time and the machine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from speil.election.record import LeaderElectionRecord, Lease, decode, encode
from speil.lease.base import LeaseConflictError, LeaseDeniedError, LeaseError
from speil.local_file import NotAFileError, parse_json, read_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom

_BYTES_MAX = 1 << 20  # a Lease has one kilobyte
_DEPTH_MAX = 32  # a Lease with managedFields has eight levels; a copy of a very deep one would raise RecursionError
# The lock is held for microseconds. If it takes longer, its holder is frozen: an error is better than to wait too.
_LOCK_TRIES_MAX = 50
_LOCK_WAIT_SECONDS = 0.01

log = get_log("lease")


class FileLease:
    """See LeaseLock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._damaged = Seldom()

    def __str__(self) -> str:
        return str(self._path)

    async def get(self) -> Lease | None:
        """See LeaseLock."""
        return self._read()

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        """See LeaseLock."""
        async with self._locked():
            # no await from here on: the lock is held for as long as this takes
            current = self._read()
            if current is not None and (base is None or base.version != current.version):
                raise LeaseConflictError(f"the lease file {self} was changed by another process")
            document = encode(record, base, name=self._path.name, namespace=str(self._path.parent))
            # a clock and not a counter: a file that was deleted and made anew must not get a version that it had before
            document["metadata"]["resourceVersion"] = str(time.time_ns())
            self._replace(document)
            written = self._read()
        if written is None:
            raise LeaseError(f"the lease file {self} was deleted while it was written")
        return written

    async def close(self) -> None:
        """Nothing is open."""

    def _read(self) -> Lease | None:
        try:
            found = read_file(self._path, _BYTES_MAX)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise LeaseDeniedError(f"this user may not read the lease file {self}: {error.strerror}") from error
        except NotAFileError as error:
            raise LeaseDeniedError(
                f"the lease file {self} is not a file: remove it, or give another --lease-file"
            ) from error
        except OSError as error:
            raise LeaseError(f"the lease file {self} can't be read: {error.strerror}") from error
        try:
            document = parse_json(found.data, _DEPTH_MAX)
            if not isinstance(document, dict):
                raise ValueError("it is not an object")
            self._damaged.over()
        except ValueError as error:
            # a damaged file counts as a Lease without a holder: the next leader writes over it
            document = {}
            if self._damaged.due(str(error)):
                log.warning(
                    "lease file is damaged",
                    path=self._path,
                    error=error,
                    meanwhile="it counts as a Lease without a holder, and a leader writes it anew",
                )
        lease = decode(document, None)
        return Lease(lease.record, lease.version, time.time() - found.stat.st_mtime, lease.document)

    def _replace(self, document: dict[str, Any]) -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(document, file, indent=1)
                os.replace(name, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise LeaseError(f"the lease file {self} can't be written: {error}") from error

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise LeaseDeniedError(
                f"the lease file {self} can't be written: {error.strerror}; its directory must exist and be writable"
            ) from error
        try:
            for _ in range(_LOCK_TRIES_MAX):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_WAIT_SECONDS)
            else:
                waited = _LOCK_TRIES_MAX * _LOCK_WAIT_SECONDS
                raise LeaseError(f"another process has held the lock {self._lock_path} for {waited:g} s: is it frozen?")
            yield
        finally:
            os.close(descriptor)  # releases the lock
