"""Makes an identified connection of a raw one: limits, handshake, gate, identify, then the connection table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p.budget import Account, Budget
from speil.libp2p.connection import FRAMES_BURST, FRAMES_PER_SECOND, Connection
from speil.libp2p.connection_table import ConnectionTable
from speil.libp2p.error import PeerMisbehavedError, PeerRefusedError, PeerUnreachableError
from speil.libp2p.identify_exchange import IdentifyExchange
from speil.libp2p.identity import Identity
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.noise import NO_SECRET, WRONG_SECRET
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.serving import SHARES_MAX
from speil.libp2p.stream import Stream
from speil.libp2p.transport import ConnectionGate, RawConnection
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.token_bucket import Buckets

IDENTIFY_SECONDS_MAX = 5.0  # go-libp2p's


class Upgrader:
    """The upgrades of one host. See `dialer.Upgrade`."""

    def __init__(
        self,
        identity: Identity,
        psks: Callable[[], tuple[bytes, ...]],
        gate: ConnectionGate,
        neighbourhood: Neighbourhood,
        exchange: IdentifyExchange,
        table: ConnectionTable,
        on_stream: Callable[[Connection, Stream], None],
        series: Libp2pSeries,
        now: Callable[[], float],
    ) -> None:
        """`psks` gives the pre-shared keys in force; `on_stream` gets the streams that peers open."""
        self._identity, self._psks, self._gate = identity, psks, gate
        self._neighbourhood, self._exchange, self._table = neighbourhood, exchange, table
        self._on_stream, self._series, self._now = on_stream, series, now
        self._budget = Budget()
        self._frames = Buckets(FRAMES_BURST, FRAMES_PER_SECOND, SHARES_MAX)

    @property
    def held_bytes(self) -> int:
        """Bytes that peers sent and nobody has read yet, above what each connection has free."""
        return self._budget.held

    async def __call__(
        self, raw: RawConnection, expected: PeerId | None, *, dialled: Multiaddr | None = None
    ) -> Connection:
        """The connection, which is in the table then; where this raises or is cancelled, it is closed.

        expected: the peer id that was dialled, None for any.
        dialled: the address that was dialled, None for an inbound connection.
        Raises Libp2pError.
        """
        inbound, host = dialled is None, raw.remote.host
        share = self._neighbourhood.share_of(host)
        connection = Connection(
            raw,
            inbound=inbound,
            on_stream=self._on_stream,
            now=self._now,
            share=share,
            account=Account(self._budget, share),
            frames=self._frames.of(share, self._now()),
            dialled=dialled,
            count=self._series.rejected,
        )
        psks = self._psks()
        try:
            await connection.secure(self._identity, psks)
            if psks:
                self._neighbourhood.add_member(host)
            self._check_peer(connection, expected)
            connection.start()
            async with asyncio.timeout(IDENTIFY_SECONDS_MAX):
                await self._exchange.ask(connection)
            self._table.add(connection)
        except PeerMisbehavedError as error:
            self._series.rejected(error.reason)
            if error.reason in (NO_SECRET, WRONG_SECRET):
                self._gate.handshake_failed(raw.remote, error.reason)
            connection.abort()
            raise
        except TimeoutError as error:
            connection.abort()
            raise PeerUnreachableError("identify was not answered") from error
        except BaseException:
            connection.abort()
            if failure := connection.failure:
                self._series.rejected(failure.reason)
            raise
        return connection

    def _check_peer(self, connection: Connection, expected: PeerId | None) -> None:
        peer = connection.peer
        if expected and peer.peer_id != expected:
            raise PeerMisbehavedError("wrong_peer_id", f"{peer.address} is {peer.peer_id}, not {expected}")
        if peer.peer_id == self._identity.peer_id:
            raise PeerUnreachableError("that is this node itself")
        if layer := self._gate.intercept_secured(peer.peer_id, inbound=connection.inbound):
            self._series.rejected(layer)
            raise PeerRefusedError(layer)
