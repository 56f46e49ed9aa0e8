"""The port between the DHT and the network: request, announce, answer.

Adapters: `libp2p_network` and `testing.network` (in memory, with faults). Only peers that speak the protocol of this
DHT are visible here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from speil.kad.key import Key
from speil.kad.message import Message
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

RequestHandler = Callable[[PeerInfo, Message], "Message | None"]


class NetworkError(Exception):
    """The peer did not answer, or sent a bad answer: try another one."""


class NotAskedError(NetworkError):
    """A limit or rule of this node prevented the request: try another peer, and do not count a failure of this one."""


class PeerNetwork(Protocol):
    """The peers of one node."""

    @property
    def local(self) -> PeerInfo:
        """This node."""

    def attach(
        self,
        handler: RequestHandler,
        on_joined: Callable[[PeerInfo, bool], None],
        on_left: Callable[[PeerId, bool], None],
    ) -> None:
        """Set the callbacks; call this once, before any other method.

        handler: gives the answer to a request of a peer, None for no answer.
        on_joined: a peer was identified; the flag says whether on a new connection.
        on_left: the last connection to a peer ended; the flag says whether one side had said goodbye.
        """

    def zone_of(self, peer_id: PeerId) -> str:
        """The zone that a peer advertised; "" where it advertised none or was never met."""

    def host_of(self, peer_id: PeerId) -> str:
        """The IP address that a connected peer comes from; "" where it is not connected."""

    def enable_claims(self) -> None:
        """Advertise from now on that this node understands claims; call this before peers identify it."""

    def understands_claims(self, peer_id: PeerId) -> bool:
        """Whether a peer advertised that it understands claims; False where it was never met."""

    def foreign_to(self, peer_id: PeerId) -> Collection[PeerId]:
        """The peers that have another topology label than `peer_id`, which may be this node: never name them to it."""

    def usable(self, namer: PeerId, named: Sequence[PeerInfo], *, any_port: bool = False) -> tuple[PeerInfo, ...]:
        """Those of the peers `named` by a connected peer that may be dialled, with the addresses that may be.

        `any_port`: at ports of other servers too, as a registry's.
        """

    async def dial(self, address: Multiaddr) -> PeerInfo | None:
        """Connect; the peer at the address, None where it does not speak this DHT's protocol. Raises NetworkError."""

    async def request(self, peer: PeerInfo, message: Message) -> Message:
        """Send a request; the answer. Has a time limit of its own. Raises NetworkError, NotAskedError."""

    async def send(self, peer: PeerInfo, message: Message) -> None:
        """Send a message that has no answer; returns when it is written. Errors and time limit are `request`'s."""

    async def announce(self, peer: PeerInfo, keys: Sequence[Key]) -> None:
        """Announce `keys` to a peer on one stream. Has a time limit of its own. Raises NetworkError, NotAskedError."""
