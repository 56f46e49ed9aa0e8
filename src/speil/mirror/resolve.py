"""Which source has the content.

| asked for | by | sources, in this order |
|---|---|---|
| a tag | this node | the tags of the store and of peers |
| a tag | a peer | the tags of the store |
| a digest | this node | the store, the peers, what other nodes download (`inflight.others`) |
| a digest | a peer | the store |
| a digest | a peer that follows | the store, what this node downloads |

Where nothing is shared in flight, the last source of a row is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from speil.inflight.build import Inflight
from speil.mirror.asked import Asked
from speil.mirror.record import Record
from speil.sources.base import ContentRequest, Opened, Source
from speil.sources.build import Sources


class Resolver:
    """Asks the sources one after the other."""

    def __init__(self, sources: Sources, inflight: Inflight | None = None) -> None:
        self._sources, self._inflight = sources, inflight

    async def open(self, asked: Asked, record: Record) -> Opened | None:
        """The content, from the first source that has it; None: nobody has it. Raises UnsatisfiableError."""
        request = ContentRequest(
            asked.content,
            record.method,
            asked.range_header,
            asked.accept,
            asked.is_containerd,
            asked.frees_slot,
            record.notes,
        )
        for source in self._order(asked):
            if (opened := await source.open(request)) is not None:
                record.source = opened.origin
                if not asked.from_peer and opened.manifest is not None and asked.content.digest is not None:
                    self._sources.tags.served(opened.digest, opened.manifest)
                return opened
        if not asked.from_peer and asked.content.digest is not None:
            self._sources.tags.not_supplied(asked.content)
        return None

    def _order(self, asked: Asked) -> Sequence[Source]:
        sources = self._sources
        if asked.content.digest is None:
            return (sources.held_tags,) if asked.from_peer else (sources.tags,)
        if asked.from_peer:
            return (sources.own, self._inflight.serving) if self._inflight and asked.follows else (sources.own,)
        return (sources.own, self._inflight.others if self._inflight else sources.peers)
