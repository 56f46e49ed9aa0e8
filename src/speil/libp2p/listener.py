"""Inbound connections: admission, the handshake within its time limit, and the count until they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p.dialer import Upgrade
from speil.libp2p.error import Libp2pError
from speil.libp2p.inbound_admission import InboundAdmission, Ticket
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.task_scope import TaskScope
from speil.libp2p.transport import ConnectionGate, RawConnection, Transport
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.setting import ListenAddress

HANDSHAKE_SECONDS_MAX = 10.0  # with identify; a slow-loris client gets this long

log = get_log("libp2p")


class Listener:
    """Accepts connections while it is entered. Its end closes the transport and ends handshakes."""

    def __init__(
        self,
        transport: Transport,
        gate: ConnectionGate,
        neighbourhood: Neighbourhood,
        upgrade: Upgrade,
        series: Libp2pSeries,
        now: Callable[[], float],
    ) -> None:
        self._transport, self._gate, self._upgrade = transport, gate, upgrade
        self._series, self._now = series, now
        self._admission = InboundAdmission(neighbourhood)
        self._lines = LineLimit()
        self._tasks = TaskScope()

    async def __aenter__(self) -> Listener:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.close()
        await self._tasks.__aexit__(None, None, None)

    async def listen(self, address: ListenAddress) -> list[Multiaddr]:
        """Accept connections at `address`; the addresses that are bound then. Raises OSError."""
        return await self._transport.listen(address, self._accept)

    @property
    def count(self) -> int:
        """Open inbound connections, also those in the handshake."""
        return self._admission.count

    @property
    def shaking_count(self) -> int:
        """Inbound connections in the handshake."""
        return self._admission.shaking_count

    def _accept(self, raw: RawConnection) -> None:
        source = raw.remote.host
        if not self._tasks.is_open:
            raw.abort()
        elif reason := self._gate.intercept_accept(raw.remote) or self._admission.refusal(source, self._now()):
            self._series.rejected(reason)
            raw.abort()
        else:
            ticket, slowest = self._admission.accept(source, self._now(), raw.abort)
            if slowest:
                self._series.rejected("slow_handshake")
                slowest.close()
            self._tasks.start(self._serve(raw, ticket))

    async def _serve(self, raw: RawConnection, ticket: Ticket) -> None:
        try:
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                    connection = await self._upgrade(raw, None, dialled=None)
            finally:
                self._admission.handshake_ended(ticket)
            await connection.wait_closed()
        except TimeoutError:
            self._series.rejected("slow_handshake")
        except Libp2pError as error:
            log.debug("inbound connection failed", remote=raw.remote, error=error)
        except Exception as error:
            if self._lines.due(ticket.share) is not None:
                log.exception("inbound connection failed because of a bug", error)
        finally:
            self._admission.closed(ticket)
            raw.abort()
