"""The identified connections of a host: kept alive, found by peer or address, closed where there are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from speil.libp2p.connection import Connection
from speil.libp2p.error import ConnectionClosedError
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.task_scope import TaskScope
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log

CONNECTIONS_HIGH_WATER = 384  # above this number the longest idle are closed,
CONNECTIONS_LOW_WATER = 256  # down to this one: the k-buckets of a large region hold under 200 peers
SHARE_WHEN_FULL = 8  # connections of one address or prefix; above high water more are closed even when in use

log = get_log("libp2p")


@dataclass(frozen=True, slots=True)
class Identified:
    """A peer advertised its protocols and addresses, on a new connection (`is_new`) or again on an existing one."""

    peer: PeerInfo
    protocols: frozenset[str]
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The last connection to a peer has ended. `polite`: one side had sent go-away, as trimming does."""

    peer_id: PeerId
    polite: bool


PeerEvent = Identified | Disconnected


class ConnectionTable:
    """All identified connections. An async context manager: its end closes them."""

    def __init__(self, neighbourhood: Neighbourhood, series: Libp2pSeries) -> None:
        self._neighbourhood, self._series = neighbourhood, series
        self._of_peer: dict[PeerId, list[Connection]] = {}
        self._listeners: list[Callable[[PeerEvent], None]] = []
        self._keepers = TaskScope()
        self._closing = False

    async def __aenter__(self) -> ConnectionTable:
        await self._keepers.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self._keepers.__aexit__(None, None, None)

    @property
    def all(self) -> list[Connection]:
        """All connections."""
        return [connection for group in self._of_peer.values() for connection in group]

    def subscribe(self, listener: Callable[[PeerEvent], None]) -> None:
        """Call `listener` for each event, in the event loop: it must not block or raise."""
        self._listeners.append(listener)

    def find(self, peer_id: PeerId) -> Connection | None:
        """The newest open connection to a peer.

        The newest, because a peer that connects again has lost the older one, and this node may not have noticed yet.
        """
        group = [connection for connection in self._of_peer.get(peer_id, ()) if not connection.closed]
        return group[-1] if group else None

    def find_dialled(self, address: Multiaddr) -> Connection | None:
        """The open connection that a dial of `address` made. Addresses that peers advertise prove nothing."""
        return next((one for one in self.all if one.dialled == address and not one.closed), None)

    def add(self, connection: Connection) -> None:
        """Keep a connection alive, notify the listeners, serve the streams that waited; then trim.

        Raises ConnectionClosedError where the table is closing.
        """
        if self._closing:
            raise ConnectionClosedError("the host is closing")
        self._of_peer.setdefault(connection.peer_id, []).append(connection)
        self._series.peers.set(len(self._of_peer))
        self._keepers.start(self._keep(connection))
        self._emit(Identified(connection.peer.info, connection.peer.protocols))
        connection.admit()
        self._trim()

    def identified_again(self, peer: RemotePeer) -> None:
        """Notify the listeners: a connected peer advertised itself again."""
        if self.find(peer.peer_id):
            self._emit(Identified(peer.info, peer.protocols, is_new=False))

    def close(self) -> None:
        """Send go-away on all connections and accept no more."""
        self._closing = True
        for connection in self.all:
            connection.close()

    async def _keep(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            group = self._of_peer[connection.peer_id]
            group.remove(connection)
            if failure := connection.failure:
                self._series.rejected(failure.reason)
                log.debug("peer broke the protocol", peer=connection.peer_id, reason=failure.reason, error=failure)
            if not group:
                del self._of_peer[connection.peer_id]
                self._emit(Disconnected(connection.peer_id, connection.polite))
            self._series.peers.set(len(self._of_peer))

    def _trim(self) -> None:
        everyone = self.all
        if len(everyone) <= CONNECTIONS_HIGH_WATER:
            return
        everyone.sort(key=lambda one: one.used_at, reverse=True)
        of_share = Counter[str]()
        surplus, idle = list[Connection](), list[Connection]()
        for connection in everyone:
            of_share[connection.peer.share] += 1
            if of_share[connection.peer.share] > SHARE_WHEN_FULL and not self._neighbourhood.is_near(
                connection.peer.host
            ):
                surplus.append(connection)
            elif not connection.stream_count:
                idle.append(connection)
        # First what one prefix has too many of, then what was not used for the longest time.
        for connection in [*reversed(surplus), *reversed(idle)][: len(everyone) - CONNECTIONS_LOW_WATER]:
            connection.close()

    def _emit(self, event: PeerEvent) -> None:
        for listener in self._listeners:
            listener(event)
