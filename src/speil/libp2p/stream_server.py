"""Streams that peers open: the negotiation, the handler of the protocol, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p import identify, multistream, ping
from speil.libp2p.connection import Connection
from speil.libp2p.error import Libp2pError, PeerMisbehavedError, PeerRefusedError, StreamResetError
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.serving import Serving
from speil.libp2p.stream import Stream, StreamHandler
from speil.libp2p.task_scope import TaskScope
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log

NEGOTIATE_SECONDS_MAX = 10.0

# The gate has to admit a peer first for every other protocol.
_SERVED_BEFORE_ADMISSION = frozenset((identify.PROTOCOL, identify.PUSH_PROTOCOL, ping.PROTOCOL))

log = get_log("libp2p")


class StreamServer:
    """Runs handlers while it is entered; its end cancels them."""

    def __init__(self, series: Libp2pSeries, now: Callable[[], float]) -> None:
        self._series = series
        self._handlers: dict[str, StreamHandler] = {}
        self._lines = LineLimit()
        self._tasks = TaskScope()
        self.serving = Serving(now)

    async def __aenter__(self) -> StreamServer:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.__aexit__(None, None, None)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that have a handler."""
        return tuple(self._handlers)

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve streams of `protocol`. The handler may raise Libp2pError; its stream is ended when it returns."""
        self._handlers[protocol] = handler

    def serve(self, connection: Connection, stream: Stream) -> None:
        """Serve a stream in a task, or reset it where the peer has too many."""
        if not self._tasks.is_open or not self.serving.begin(stream.peer):
            self._series.rejected("too_many_streams")
            stream.reset()
        else:
            self._tasks.start(self._serve(connection, stream))

    async def _serve(self, connection: Connection, stream: Stream) -> None:
        try:
            async with asyncio.timeout(NEGOTIATE_SECONDS_MAX):
                await self.serving.wait_turn(stream.peer)
                stream.protocol = await multistream.accept(stream, self._handlers)
                if stream.protocol not in _SERVED_BEFORE_ADMISSION:
                    await connection.wait_admitted(stream)
            await self._handlers[stream.protocol](stream)
            stream.drop(StreamResetError("its handler has ended"))
        except PeerMisbehavedError as error:
            self._series.rejected(error.reason)
            stream.reset()
        except PeerRefusedError:
            connection.abort()
        except (TimeoutError, Libp2pError):
            stream.reset()
        except Exception as error:
            if self._lines.due(stream.peer.share) is not None:
                log.exception("stream handler failed", error, protocol=stream.protocol)
            stream.reset()
        finally:
            self.serving.end(stream.peer)
