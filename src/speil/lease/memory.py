"""A Lease in memory, for several electors in one process: tests."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime
from typing import Any

from speil.election.record import LeaderElectionRecord, Lease, decode, encode
from speil.lease.base import LeaseConflictError


class MemoryLease:
    """See LeaseLock. `document` is the Lease's JSON, None where there is none; a test may delete it."""

    def __init__(self, name: str = "lease", namespace: str = "memory") -> None:
        self._name, self._namespace = name, namespace
        self.document: dict[str, Any] | None = None
        self._version = 0
        self._written_at = 0.0

    def __str__(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def get(self) -> Lease | None:
        """See LeaseLock."""
        return self._lease()

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        """See LeaseLock."""
        current = self._lease()
        if current is not None and (base is None or base.version != current.version):
            raise LeaseConflictError(f"the Lease {self} was changed by another node")
        self.edit(encode(record, base, name=self._name, namespace=self._namespace))
        self._written_at = time.monotonic()
        lease = self._lease()
        assert lease is not None
        return lease

    def edit(self, document: dict[str, Any]) -> None:
        """Replace the document without a version check, as kubectl can; it gets a new version."""
        self._version += 1
        self.document = document | {"metadata": document["metadata"] | {"resourceVersion": str(self._version)}}

    async def close(self) -> None:
        """Nothing is open."""

    def _lease(self) -> Lease | None:
        if self.document is None:
            return None
        lease = decode(copy.deepcopy(self.document), datetime.now(UTC))
        return Lease(lease.record, lease.version, time.monotonic() - self._written_at, lease.document)
