"""What the node's page follows: sections of the node's state, each sent when it has changed.

The state is read once for all open pages, some times a second while bodies are being sent, else once a second. What is
costly to read (peers, images) is read less often.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from speil.border.series import BorderSeries
from speil.mirror.node_state import NodeState
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest
from speil.store.base import StoreError
from speil.web.held_images import HeldImages

BUSY_SECONDS, QUIET_SECONDS = 0.25, 1.0  # between two looks at the state, with and without bodies being sent
PEERS_SECONDS = 5.0  # between two looks at the routing table
PEERS_SHOWN_MAX = 500
REQUESTS_SHOWN_MAX = 50


class NodeFeed:
    """See Feed."""

    def __init__(self, state: NodeState, store_kind: str, images: HeldImages) -> None:
        self._state, self._images, self._store_kind = state, images, store_kind
        self._sections: dict[str, str] = {}
        self._read_at: dict[str, float] = {}
        self._versions: dict[str, Any] = {}
        self.is_busy = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NodeCursor]:
        """See Feed."""
        async with asyncio.TaskGroup() as group:
            counting = group.create_task(self._images.keep_fresh())
            yield NodeCursor(self)
            counting.cancel()

    def sections(self) -> dict[str, str]:
        """The JSON of each section now."""
        self._look("transfers", BUSY_SECONDS, self._transfers)
        self._look("node", QUIET_SECONDS, self._node)
        self._look("traffic", QUIET_SECONDS, self._traffic)
        self._look("kept_out", QUIET_SECONDS, self._kept_out)
        self._look("images", QUIET_SECONDS, self._images.document, lambda: self._images.version)
        self._look("peers", PEERS_SECONDS, self._peers, self._peers_version)
        return self._sections

    async def stats(self) -> dict[str, Any]:
        """What Spegel's route of this name counts, and the traffic. `images` is None where the store has no answer."""
        try:
            images = len(await self._state.store.images())
        except StoreError:
            images = None
        return {"images": images, "peers": len(self._state.router.peers()), "traffic": self._traffic()}

    def requests_since(self, total: int) -> list[dict[str, Any]]:
        """The requests that ended after `total` of them had, newest first."""
        return [asdict(request) for request in self._state.registry.recent.since(total, REQUESTS_SHOWN_MAX)]

    @property
    def holders(self) -> tuple[int, dict[Digest, int]]:
        """A number that changes with the counts, and the number of peers that hold each image."""
        return self._images.counts_version, self._images.counts()

    @property
    def requests_total(self) -> int:
        """How many requests have ended."""
        return self._state.registry.recent.total

    def _look(
        self, name: str, seconds: float, read: Callable[[], Any], version: Callable[[], Any] | None = None
    ) -> None:
        """Read a section anew after `seconds`; one with a `version` only where that has changed."""
        now = asyncio.get_running_loop().time()
        # several pages look within one period: only the first of them reads
        if now - self._read_at.get(name, float("-inf")) < 0.9 * seconds:
            return
        self._read_at[name] = now
        found = version() if version is not None else None
        if version is None or name not in self._sections or found != self._versions.get(name):
            self._versions[name] = found
            self._sections[name] = json.dumps(read())

    def _transfers(self) -> list[dict[str, Any]]:
        """Downloads that grow, with the requests that are being answered; a body that is in both stands there once."""
        shared = self._state.transfers()
        known = {(one["key"], one["role"] == "serving") for one in shared}
        asked = [one for one in self._state.in_flight() if (one["key"], one["role"] == "serving") not in known]
        self.is_busy = bool(shared or asked)
        return [*shared, *asked]

    def _node(self) -> dict[str, Any]:
        state = self._state
        return {
            **state.identity(),
            "ready": state.router.ready,
            "store_available": state.store.available,
            "store_kind": self._store_kind,
            "leader": state.leader(),
        }

    def _traffic(self) -> dict[str, Any]:
        found = Counter({"peer_bytes": 0, "own_bytes": 0, "sent_bytes": 0, "upstream_bytes": 0, "hits": 0, "misses": 0})
        for counts in self._state.traffic().values():
            found.update(counts)
        return dict(found)

    def _kept_out(self) -> dict[str, Any]:
        return {"layers": self._state.metrics.of(BorderSeries).counts(), "last": self._state.kept_out()}

    def _peers_version(self) -> list[tuple[PeerId, str]]:
        router = self._state.router
        return [(peer.peer_id, router.zone_of(peer.peer_id)) for peer in router.peers()]

    def _peers(self) -> dict[str, Any]:
        peers = self._state.peers()
        return {"peers": peers[:PEERS_SHOWN_MAX], "left_out": max(len(peers) - PEERS_SHOWN_MAX, 0)}


class NodeCursor:
    """See Cursor."""

    def __init__(self, feed: NodeFeed) -> None:
        self._feed = feed
        self._sent: dict[str, str] = {}
        self._requests_total: int | None = None
        self._holders_version = 0
        self._holders: dict[Digest, int] = {}

    def changes(self) -> list[tuple[str, str]]:
        """See Cursor."""
        found = []
        for name, text in self._feed.sections().items():
            if self._sent.get(name) != text:
                self._sent[name] = text
                found.append((name, _with_clock(text) if name == "node" else text))
        version, holders = self._feed.holders
        if version != self._holders_version:
            changed = {str(one): count for one, count in holders.items() if self._holders.get(one) != count}
            self._holders_version, self._holders = version, holders
            found.append(("holders", json.dumps(changed)))
        total = self._feed.requests_total
        if total != self._requests_total:
            requests = self._feed.requests_since(self._requests_total or 0)
            is_first, self._requests_total = self._requests_total is None, total
            found.append(("requests", json.dumps({"is_first": is_first, "requests": requests})))
        return found

    @property
    def wait_seconds(self) -> float:
        """See Cursor."""
        return BUSY_SECONDS if self._feed.is_busy else QUIET_SECONDS


def _with_clock(text: str) -> str:
    """The section with this node's clock, which is not compared: ages are shown by it."""
    return f'{text[:-1]}, "now": {time.time():.3f}}}'
