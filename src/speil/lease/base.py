"""The port to a Lease: read it, and write it over the version that was read.

There is no write without a version. A node that lost the Lease without knowing it can't take it back by accident.
"""

from __future__ import annotations

from typing import Protocol

from speil.election.record import LeaderElectionRecord, Lease


class LeaseError(Exception):
    """A request failed, or its outcome is unknown. Trying again may help."""


class LeaseConflictError(LeaseError):
    """Somebody else wrote first: read again before the next write."""


class LeaseDeniedError(LeaseError):
    """Trying again will not help before an operator acts. The message says what to do."""


class LeaseLock(Protocol):
    """One Lease. A call may be cancelled at any time; whether a write took effect is then unknown."""

    def __str__(self) -> str:
        """Its name in log lines: `namespace/name`, or a path."""

    async def get(self) -> Lease | None:
        """The Lease as it is now; None: there is none. Raises LeaseError."""

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        """Write `record` over `base`, or create the Lease where that is None. Returns what was written.

        A Lease that was deleted since `base` was read is created again. Raises LeaseConflictError if the Lease was
        changed since or, with None, exists; LeaseError.
        """

    async def close(self) -> None:
        """Close connections. The Lease itself is not changed. The owner of the lock calls it once."""
