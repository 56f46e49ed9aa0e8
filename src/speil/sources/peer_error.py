"""How a request to a peer failed."""

from __future__ import annotations

from enum import StrEnum

from speil.fetch.peer_health import Failure


class Outcome(StrEnum):
    """The label of `speil_peer_requests_total`."""

    OK = "ok"
    NOT_FOUND = "not_found"
    BUSY = "busy"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    BAD_ANSWER = "bad_answer"
    RANGE = "range"
    OWN_LIMIT = "own_limit"  # this node is out of descriptors


_FAILURES = {
    Outcome.NOT_FOUND: Failure.GONE,
    Outcome.BUSY: Failure.BUSY,
    Outcome.REFUSED: Failure.REFUSED,
    Outcome.TIMEOUT: Failure.SILENT,
    Outcome.BROKEN: Failure.BROKEN,
    Outcome.BAD_ANSWER: Failure.WRONG,
    Outcome.RANGE: Failure.GONE,
    Outcome.OWN_LIMIT: Failure.GONE,
}


class PeerError(Exception):
    """The peer can't serve this. `failure` is what it means for the peer's health; GONE: it did nothing wrong."""

    def __init__(self, outcome: Outcome, message: str, *, failure: Failure | None = None) -> None:
        """Without `failure` it follows from the outcome."""
        super().__init__(message)
        self.outcome, self.failure = outcome, failure or _FAILURES[outcome]


class PeerBusyError(PeerError):
    """The peer sends as many bodies as it may (503); `retry_after_seconds` is 0 where it did not say."""

    def __init__(self, reason: str, retry_after_seconds: float) -> None:
        super().__init__(Outcome.BUSY, f"it is busy ({reason})")
        self.retry_after_seconds = retry_after_seconds


class RangeRefusedError(PeerError):
    """The peer has the content, `size` bytes of it, and the range is behind its end (416)."""

    def __init__(self, size: int) -> None:
        super().__init__(Outcome.RANGE, f"416, the size is {size}")
        self.size = size


class NoPeerError(Exception):
    """No peer serves the content; the message says why."""
