"""The port to a Lease: read it, and write it on the version that was read.

There is no way to overwrite blindly: a node that lost the Lease without knowing it can't take it back by accident.
"""

from __future__ import annotations

from typing import Protocol

from speil.election.record import LeaderElectionRecord, Lease


class LeaseError(Exception):
    """The Lease could not be read or written, or nobody knows whether it was. Asking again may help."""


class LeaseConflictError(LeaseError):
    """Somebody else wrote first. Read again."""


class LeaseDeniedError(LeaseError):
    """Nothing will change until an operator acts; the message says what is missing."""


class LeaseLock(Protocol):
    """One Lease. Every call may be cut off by cancellation; whether it took effect is then unknown."""

    def __str__(self) -> str:
        """Its name, for people: `namespace/name` or a path."""

    async def get(self) -> Lease | None:
        """The Lease; None: there is none. Raises LeaseError."""

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        """Write `record` into `base`, or as a new Lease where that is None; what stands there now.

        A Lease that was deleted since `base` was read is created again. Raises LeaseConflictError where it was
        changed or, with None, where there is one; LeaseError.
        """

    async def close(self) -> None:
        """Let go of connections. The Lease stays as it is."""
