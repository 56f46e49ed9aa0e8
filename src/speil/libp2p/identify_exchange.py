"""Runs identify on connections: asks the peer, answers its question, reads its pushes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from speil.libp2p import identify
from speil.libp2p.connection import Connection
from speil.libp2p.dial_rules import DialRules
from speil.libp2p.error import PeerRefusedError
from speil.libp2p.identity import Identity
from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.stream import Stream
from speil.libp2p.transport import ConnectionGate
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo


class IdentifyExchange:
    """The identify messages of one host. What a peer says is stored in its `RemotePeer`."""

    def __init__(
        self,
        identity: Identity,
        agent_version: str,
        gate: ConnectionGate,
        dial_rules: DialRules,
        series: Libp2pSeries,
        *,
        protocols: Callable[[], Iterable[str]],
        addresses: Callable[[], tuple[Multiaddr, ...]],
    ) -> None:
        """`protocols` and `addresses` are what this node advertises now."""
        self._identity, self._agent_version = identity, agent_version
        self._gate, self._dial_rules, self._series = gate, dial_rules, series
        self._protocols, self._addresses = protocols, addresses
        self._sequence = 0

    async def ask(self, connection: Connection) -> None:
        """Read what the peer advertises. Raises PeerRefusedError where the gate refuses it, and Libp2pError."""
        async with await connection.open_stream(identify.PROTOCOL) as stream:
            self._learn(connection.peer, await identify.read(stream))

    async def read_push(self, stream: Stream) -> None:
        """Read what the peer advertises now. Raises PeerRefusedError, Libp2pError."""
        self._learn(stream.peer, await identify.read(stream))
        stream.close_write()

    async def answer(self, stream: Stream) -> None:
        """Send what this node advertises. Raises Libp2pError."""
        await stream.write_message(self.message(stream.peer))
        stream.close_write()

    def message(self, peer: RemotePeer) -> bytes:
        """The identify message for `peer`, which names the address that this node sees it at."""
        self._sequence += 1
        return identify.answer(
            self._identity,
            list(self._protocols()),
            self._addresses(),
            peer.address,
            self._agent_version,
            self._sequence,
        )

    def _learn(self, peer: RemotePeer, said: identify.Identification) -> None:
        if layer := self._gate.intercept_identified(peer.peer_id, said.protocols, said.agent_version):
            self._series.rejected(layer)
            raise PeerRefusedError(layer)
        peer.protocols, peer.agent_version = said.protocols, said.agent_version
        peer.info = PeerInfo(peer.peer_id, self._dial_rules.usable(said.addresses))
