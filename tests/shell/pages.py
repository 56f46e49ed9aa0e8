"""The metrics port of a mirror in this process, with the node's pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from speil.border.build import Border
from speil.border.http import HttpDoor
from speil.border.record import BorderRecord
from speil.http1.guard import Guard
from speil.mirror.metrics_port import MetricsServer
from speil.mirror.node_state import NodeState
from speil.oci.platform import Platform
from speil.region.identity import identify
from speil.region.policy import Policy
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import DhtRouter
from speil.setting import ListenAddress
from speil.web.held_images import HeldImages
from speil.web.node_feed import NodeFeed
from speil.web.node_page import NodePages
from speil.web.probe import Probe
from speil.web.series import WebSeries
from speil.web.trace_route import TraceRoute
from speil.web.tracer import Tracer
from tests.shell.mirrors import Mirror
from tests.shell.nodes import free_ports

NODE = Platform.of("linux", "amd64")


@dataclass
class Pages:
    """The pages of one node at `url`, and what they read from."""

    url: str
    server: MetricsServer
    pages: NodePages
    state: NodeState
    border: BorderRecord


def tracer_of(mirror: Mirror) -> Tracer:
    """Traces on that mirror's node, whose containerd pulls NODE."""
    built = mirror.built
    probe = Probe(built.sources.peers, built.sources.access, built.wire)
    return Tracer(built.sources, mirror.store, built.parser, probe, (NODE,))


def state_of(mirror: Mirror, record: BorderRecord) -> NodeState:
    """The state of that mirror's node, which is in region eu."""
    policy, local = Policy("eu"), mirror.router.local.peer_id
    border = Border(identify(region="eu", zone="z9"), policy, None, record, "node-9")
    router = cast(DhtRouter, mirror.router)  # what is read of it here, both have
    return NodeState(
        border, HttpDoor(policy, local, None, record), StaticBootstrapper(()), router, mirror.store, mirror.built,
        mirror.metrics, True,
    )  # fmt: skip


@asynccontextmanager
async def pages(mirror: Mirror, *names: str) -> AsyncIterator[Pages]:
    """The pages of that mirror's node; `names` are allowed as Host."""
    (port,) = free_ports("127.0.0.1", 1)
    record = BorderRecord("eu", mirror.metrics)
    state = state_of(mirror, record)
    feed = NodeFeed(state, "memory", HeldImages(mirror.store, mirror.router))
    series = mirror.metrics.of(WebSeries)
    guard = Guard(names)
    made = NodePages(guard, TraceRoute(tracer_of(mirror), series), feed, series)
    server = MetricsServer(mirror.metrics, state, web=made.answer, guard=guard)
    async with server.serve(ListenAddress("127.0.0.1", port)):
        yield Pages(f"http://127.0.0.1:{port}", server, made, state, record)
