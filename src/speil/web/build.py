"""Makes the node's pages from its other parts, at the first request for one: an idle node does not load them."""

from __future__ import annotations

from dataclasses import dataclass

from speil.http1.guard import Guard
from speil.http1.message import Request
from speil.http1.reply import Reply
from speil.http1.server import Handler
from speil.mirror.build import RegistryPort
from speil.mirror.node_state import NodeState
from speil.mirror.settings import MirrorSettings


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What the pages read from."""

    settings: MirrorSettings
    state: NodeState
    registry: RegistryPort
    store_kind: str
    guard: Guard


class NodeWeb:
    """The handler of all requests below `/debug/web`."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._answer: Handler | None = None

    async def answer(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        if self._answer is None:
            self._answer = _build(self._parts)
        await self._answer(request, reply)


def _build(parts: NodeParts) -> Handler:
    from speil.web.held_images import HeldImages
    from speil.web.node_feed import NodeFeed
    from speil.web.node_page import NodePages
    from speil.web.probe import Probe
    from speil.web.series import WebSeries
    from speil.web.trace_route import TraceRoute
    from speil.web.tracer import Tracer

    series = parts.state.metrics.of(WebSeries)
    registry, sources = parts.registry, parts.registry.sources
    probe = Probe(sources.peers, sources.access, registry.wire)
    tracer = Tracer(sources, parts.state.store, registry.parser, probe, parts.settings.node_platforms)
    feed = NodeFeed(parts.state, parts.store_kind, HeldImages(parts.state.store, parts.state.router))
    return NodePages(parts.guard, TraceRoute(tracer, series), feed, series).answer
