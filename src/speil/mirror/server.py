"""The registry port: its routes, the probes, the region's border, and the bound of its connections.

Connections are counted by address or prefix (`http1.places`): a stranger that opens a thousand of them costs a bounded
amount of memory, and containerd's next request is still answered, as is the kubelet's probe.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from speil.border.http import NODE_TOKEN_HEADER, HttpDoor, is_peer
from speil.http1.message import Request
from speil.http1.own_addresses import OwnAddresses
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer, Shares
from speil.mirror import plan as plans
from speil.mirror.proof import prove
from speil.mirror.record import Record, Recorder
from speil.mirror.registry import Registry
from speil.mirror.send import Sender
from speil.mirror.series import MirrorSeries
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.setting import ListenAddress
from speil.wire.turnstile import Turnstile

# one node's containerd needs ten, hundreds of peers one or two each
CONNECTIONS = Bounds(total=2048, own=256, per_share=256)
STRANGERS_PER_ROUND = 5  # requests of any kind in a round of the event loop; each costs a third of a millisecond

log = get_log("mirror")


class RegistryServer:
    """The port."""

    def __init__(
        self,
        registry: Registry,
        door: HttpDoor,
        sender: Sender,
        recorder: Recorder,
        starts: Turnstile,
        ready: Callable[[], bool],
        series: MirrorSeries,
        *,
        bounds: Bounds = CONNECTIONS,
        own: OwnAddresses | None = None,
        neighbourhood: Shares | None = None,
        lines: LineLimit | None = None,
    ) -> None:
        """`starts` bounds the requests that begin in one round of the event loop. `ready` answers the readiness probe.

        `lines` limits log lines by share, those of requests too.
        """
        self._registry, self._door, self._sender, self._recorder = registry, door, sender, recorder
        self._starts, self._ready = starts, ready
        self._bugs = Seldom()
        self._strangers = Turnstile(STRANGERS_PER_ROUND)
        self.port = GuardedServer(
            "registry", self._answer, bounds, own=own, neighbourhood=neighbourhood,
            count_refused=lambda reason: series.http_connections_refused.labels("registry", reason).inc(),
            count_malformed=series.http_malformed_requests.labels("registry").inc,
            lines=lines,
        )  # fmt: skip

    def serve(self, address: ListenAddress) -> AbstractAsyncContextManager[None]:
        """Listen on `address` (an empty host is all of both families). Raises OSError."""
        return self.port.serve(address)

    async def _answer(self, request: Request, reply: Reply) -> None:
        if not request.place.is_own:
            await self._strangers.enter(request.place.share)
        handler = _handler_label(request.path)
        with self._recorder.record(handler, request.method, request.place) as record:
            if handler == "/v2/*":
                await self._enter(request, reply, record)
            else:
                await self._sender.send(self._probe(request.method, handler), reply, record)

    async def _enter(self, request: Request, reply: Reply, record: Record) -> None:
        # the border is here: nothing below /v2 can be reached around it
        visit = self._door.enter(request.method, request.target, request.headers, request.place.host)
        if visit is None:
            await self._sender.send(plans.NOT_FOUND, reply, record)
            return
        prove(reply, visit)
        if self._door.has_secret and NODE_TOKEN_HEADER in request.headers and not is_peer(request.headers):
            self.port.proved(request.place)  # from any address: only this node's hosts.toml has the token
        await self._starts.enter(request.place.share)
        try:
            await self._registry.answer(request, reply, visit, record)
        except Exception as error:
            if reply.status is not None:
                raise  # the head is sent: this answer can only break off
            # a bug of ours is a miss: containerd goes upstream at once, as for all that is not here
            if self._bugs.due(repr(error)):
                log.exception("a request failed", error, method=request.method, path=request.path)
            record.source, record.outcome = None, "failed"
            await self._sender.send(plans.NOT_FOUND, reply, record)

    def _probe(self, method: str, handler: str) -> plans.Plan:
        if method not in ("GET", "HEAD") or handler == "other":
            return plans.NOT_FOUND
        return plans.OK if handler == "/livez" or self._ready() else plans.NOT_READY


def _handler_label(path: str) -> str:
    if path in ("/readyz", "/livez", "/healthz"):
        return path
    return "/v2/*" if path == "/v2" or path.startswith("/v2/") else "other"
