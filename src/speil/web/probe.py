"""Asks the peers for one content of a trace: who has a record of it, who serves it, and how fast.

The search for holders and the request run side by side, as in containerd's request: the answer has to come within the
same limits, so a holder that is found too late does not count as one that serves.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.oci.byte_range import UnsatisfiableError
from speil.oci.endpoint import Content
from speil.oci.manifest import Manifest
from speil.sources.base import BrokeOffError, ContentRequest, Notes
from speil.sources.peer_access import PeerAccess
from speil.sources.peers import Peers
from speil.trace.found import Holder, Measured, Part
from speil.wire.discard import Discard
from speil.wire.turns import Wire

FIND_SECONDS_MAX = 1.0  # for more holders, after the request has its answer
HOLDERS_SHOWN_MAX = 10  # of one content; a base layer has as many holders as the region has nodes
HOLDERS_COUNTED_MAX = 1000
MEASURE_BYTES_MAX = 16 << 20  # of one content: enough to see the speed of a 10 Gbit/s link
MEASURE_SECONDS_MAX = 5.0  # of one content


class Probe:
    """For one node. `wire` is the registry port's."""

    def __init__(self, peers: Peers, access: PeerAccess, wire: Wire) -> None:
        self._peers, self._access, self._wire = peers, access, wire

    async def manifest(
        self, part: Part, content: Content, *, is_served: bool, measure: bool
    ) -> tuple[Part, Manifest | None]:
        """The part with what peers answered, and the manifest that a peer sent. `is_served`: this node asks peers."""
        found = _Found(self._access, content.key)
        manifest: Manifest | None = None
        async with asyncio.TaskGroup() as group:
            group.create_task(found.search())
            if is_served:
                started, notes = _now(), Notes()
                opened = await self._peers.open(ContentRequest(content, "GET", notes=notes))
                if opened is None:
                    part = replace(part, miss=notes.miss)
                else:
                    async with opened:
                        manifest, size, seconds = opened.manifest, opened.size, _now() - started
                        holder = self._holder(notes.peer, found)
                        measured = Measured(size, seconds, seconds, True, "", holder) if measure else None
                        part = replace(part, served_by=holder, size_bytes=size, measured=measured)
            found.end_soon()
        return self._with_holders(part, found), manifest

    async def blob(self, part: Part, content: Content, *, is_served: bool, measure: bool) -> Part:
        """The part with what peers answered."""
        found = _Found(self._access, content.key)
        async with asyncio.TaskGroup() as group:
            group.create_task(found.search())
            if is_served:
                notes = Notes()
                if measure:
                    part = await self._pull(part, content, notes, found)
                else:
                    opened = await self._peers.open(ContentRequest(content, "HEAD", notes=notes))
                    if opened is None:
                        part = replace(part, miss=notes.miss)
                    else:
                        await opened.close()
                        part = replace(part, served_by=self._holder(notes.peer, found))
            found.end_soon()
        return self._with_holders(part, found)

    async def _pull(self, part: Part, content: Content, notes: Notes, found: _Found) -> Part:
        """Take the first MEASURE_BYTES_MAX bytes and drop them."""
        is_large = not part.size_bytes or part.size_bytes > MEASURE_BYTES_MAX
        wanted = f"bytes=0-{MEASURE_BYTES_MAX - 1}" if is_large else ""
        sink, started, first = Discard(self._wire), _now(), None
        is_whole, error, opened = False, "", None
        try:
            async with asyncio.timeout(MEASURE_SECONDS_MAX):
                opened = await self._peers.open(ContentRequest(content, "GET", wanted, notes=notes))
                if opened is None:
                    return replace(part, miss=notes.miss)
                first = _now() - started
                await opened.send(sink)
                is_whole = opened.length == opened.size
        except TimeoutError:
            error = "" if sink.sent else f"nothing came within {MEASURE_SECONDS_MAX:g} s"
        except (BrokeOffError, UnsatisfiableError) as failure:
            error = str(failure)
        finally:
            if opened is not None:
                await opened.close()
        holder = self._holder(notes.peer, found)
        measured = Measured(sink.sent, _now() - started, first, is_whole, error, holder)
        return replace(part, served_by=holder if sink.sent else None, miss=error, measured=measured)

    def _with_holders(self, part: Part, found: _Found) -> Part:
        shown = tuple(self._shown(peer) for peer in list(found.peers.values())[:HOLDERS_SHOWN_MAX])
        return replace(part, holders=shown, holders_count=len(found.peers), find_seconds=found.first_seconds)

    def _holder(self, peer_id: PeerId | None, found: _Found) -> Holder | None:
        if peer_id is None:
            return None
        return self._shown(found.peers.get(peer_id) or PeerInfo(peer_id, ()))

    def _shown(self, peer: PeerInfo) -> Holder:
        zone = self._access.knowledge.zone_of(peer.peer_id)
        return Holder(str(peer.peer_id), next(iter(peer.hosts), ""), zone)


class _Found:
    """The search for the holders of `key`."""

    def __init__(self, access: PeerAccess, key: str) -> None:
        self._access, self._key = access, key
        self._enough = asyncio.Event()
        self.peers: dict[PeerId, PeerInfo] = {}
        self.first_seconds: float | None = None

    async def search(self) -> None:
        """Collect holders until the search ends, or FIND_SECONDS_MAX after `end_soon`."""
        started = _now()
        async with asyncio.TaskGroup() as group:
            collecting = group.create_task(self._collect(started))
            waiting = group.create_task(self._wait())
            await asyncio.wait((collecting, waiting), return_when=asyncio.FIRST_COMPLETED)
            collecting.cancel()
            waiting.cancel()

    def end_soon(self) -> None:
        """The request has its answer: a bounded wait for more holders begins."""
        self._enough.set()

    async def _collect(self, started: float) -> None:
        async for peer in self._access.find(self._key):
            if self.first_seconds is None:
                self.first_seconds = _now() - started
            self.peers[peer.peer_id] = peer
            if len(self.peers) >= HOLDERS_COUNTED_MAX:
                return

    async def _wait(self) -> None:
        await self._enough.wait()
        await asyncio.sleep(FIND_SECONDS_MAX)


def _now() -> float:
    return asyncio.get_running_loop().time()
