"""The proof that an answer is of this region and to this request (`region.proof`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speil.border.http import Visit
from speil.http1.reply import Reply


def prove(reply: Reply, visit: Visit) -> None:
    """Add the proof when the head is written: status and headers are final then. Nothing for a visitor without one."""

    def fields(status: int, headers: Sequence[tuple[str, str]]) -> Iterable[tuple[str, str]]:
        return visit.proof(status, headers).items()

    if visit.is_proven:
        reply.decorate = fields
