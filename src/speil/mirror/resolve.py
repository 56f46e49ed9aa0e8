"""Which source has the content.

| asked for | by | sources, in this order |
|---|---|---|
| a tag | this node | the tags of the store and of peers |
| a tag | a peer | the tags of the store |
| a digest | this node | the store, the peers |
| a digest | a peer | the store |
"""

from __future__ import annotations

from collections.abc import Sequence

from speil.mirror.asked import Asked
from speil.mirror.record import Record
from speil.sources.base import ContentRequest, Opened, Source
from speil.sources.build import Sources


class Resolver:
    """Asks the sources one after the other."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def open(self, asked: Asked, record: Record) -> Opened | None:
        """The content, from the first source that has it; None: nobody has it. Raises UnsatisfiableError."""
        request = ContentRequest(
            asked.content, record.method, asked.range_header, asked.accept, asked.is_containerd, record.notes
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
        return (sources.own,) if asked.from_peer else (sources.own, sources.peers)
