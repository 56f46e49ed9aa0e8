"""The port between the DHT and the wire: ask a peer, tell a peer, be asked.

Adapters: `libp2p_network` (the real one) and `testing.network` (in memory, with faults). Only peers that speak our
DHT's protocol id are seen through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from speil.kad.key import Key
from speil.kad.message import Message
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

RequestHandler = Callable[[PeerInfo, Message], "Message | None"]


class NetworkError(Exception):
    """The peer did not answer or answered nonsense: take another."""


class NotAskedError(NetworkError):
    """A bound or rule of ours kept this node from asking: take another, and don't hold it against the peer."""


class PeerNetwork(Protocol):
    """A node's way to its peers."""

    @property
    def local(self) -> PeerInfo:
        """This node."""

    def attach(
        self,
        handler: RequestHandler,
        on_joined: Callable[[PeerInfo, bool], None],
        on_left: Callable[[PeerId, bool], None],
    ) -> None:
        """Answer peers with `handler` (None: no answer) and hear of peers.

        `on_joined`: one is there, on a connection that is new or on one that was there; `on_left`: its last connection
        ended, politely or not.
        """

    def zone_of(self, peer_id: PeerId) -> str:
        """The zone that a peer told when it was met, "" where it told none or was not met."""

    def host_of(self, peer_id: PeerId) -> str:
        """The address that a connected peer was seen to come from, "" where it is not connected."""

    async def dial(self, address: Multiaddr) -> PeerInfo | None:
        """Connect; the peer there, None where it does not speak our DHT. Raises NetworkError."""

    async def request(self, peer: PeerInfo, message: Message) -> Message:
        """Ask and wait. Raises NetworkError."""

    async def announce(self, peer: PeerInfo, keys: Sequence[Key]) -> None:
        """Tell a peer on one stream that this node holds `keys`. Raises NetworkError."""
