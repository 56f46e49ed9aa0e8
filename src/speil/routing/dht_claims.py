"""The ClaimNetwork port on the DHT: questions to umpires in GET_PROVIDERS, releases in ADD_PROVIDER."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Any

from speil.claims.codec import ClaimMessageError, decode, encode
from speil.claims.message import (
    Alone,
    Answer,
    Ask,
    AskStatus,
    ClaimMessage,
    Defer,
    Fetch,
    Follow,
    Holders,
    Release,
    Status,
)
from speil.kad.message import Message, MessageType
from speil.kad.network_group import OwnNetwork
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.claim_network import StatusOf, short
from speil.routing.claim_peers import ClaimPeers, Nearest
from speil.routing.lookups import Lookups
from speil.routing.network import NetworkError, NotAskedError, PeerNetwork
from speil.routing.series import ClaimSeries
from speil.routing.umpire_server import HoldersOf, UmpireServer

ASK_SECONDS_MAX = 2.0  # for one peer; an asker does not wait that long, and a late answer is of no use

log = get_log("claims")


class DhtClaims:
    """One node's way to the umpires, and its own umpire. See ClaimNetwork."""

    def __init__(
        self,
        network: PeerNetwork,
        table: RoutingTable,
        lookups: Lookups,
        own: OwnNetwork,
        metrics: Metrics,
        rng: Random,
        *,
        holders: HoldersOf,
        nearest: Nearest,
        zone: str = "",
    ) -> None:
        """`holders`: see UmpireServer. `nearest`: see ClaimPeers."""
        self._network, self._table, self._lookups, self._holders = network, table, lookups, holders
        self._peers = ClaimPeers(network, table, own, lookups.gone, nearest, zone)
        self._server = UmpireServer(network, self._peers, holders, metrics.of(ClaimSeries), rng)

    # --- the port ---------------------------------------------------------------------------------------

    @property
    def local(self) -> PeerInfo:
        """See ClaimNetwork."""
        return self._peers.local

    def attach(self, status: StatusOf) -> None:
        """See ClaimNetwork."""
        self._server.enable(status)

    def closest(self, key: bytes) -> list[PeerInfo]:
        """See ClaimNetwork."""
        return self._peers.closest(key) if self._server.is_enabled else []

    def nobody_has(self, key: bytes) -> bool:
        """See ClaimNetwork."""
        if not self._lookups.mesh_is_small or len(self._table) >= K:
            return False
        local = self._network.local.peer_id
        return all(peer.peer_id == local for peer in self._holders(key, self._peers.local.zone))

    async def ask(self, umpire: PeerInfo, key: bytes, ask: Ask) -> Answer:
        """See ClaimNetwork."""
        if umpire.peer_id == self._network.local.peer_id:
            return self._server.answer_own(key, ask)
        said = await self._request(umpire, key, ask)
        if isinstance(said, Fetch | Follow | Holders | Defer | Alone):
            return said
        raise NetworkError(f"{umpire.peer_id.short}: its answer has no valid claim")

    async def ask_status(self, source: PeerInfo, key: bytes) -> Status:
        """See ClaimNetwork."""
        said = await self._request(source, key, AskStatus())
        if isinstance(said, Status):
            return said
        raise NetworkError(f"{source.peer_id.short}: its answer has no valid status")

    async def release(self, umpire: PeerInfo, key: bytes, release: Release) -> None:
        """See ClaimNetwork."""
        if umpire.peer_id == self._network.local.peer_id:
            self._server.release_own(key, release)
            return
        message = Message(MessageType.ADD_PROVIDER, key, claim=encode(release))
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                await self._network.send(umpire, message)
        except (NetworkError, TimeoutError) as error:
            log.debug("release not sent to the umpire", key=short(key), peer=umpire.peer_id, error=error)

    async def _request(self, peer: PeerInfo, key: bytes, question: Ask | AskStatus) -> ClaimMessage | None:
        """The checked claim of the answer; None where it has none, or names no peer that this node may use."""
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                message = Message(MessageType.GET_PROVIDERS, key, claim=encode(question))
                answer = await self._network.request(peer, message)
        except NotAskedError:
            raise
        except (NetworkError, TimeoutError) as error:
            self._lookups.failed(peer.peer_id)
            raise NetworkError(f"{peer.peer_id.short}: {error!r}") from error
        self._lookups.answered(peer)
        try:
            return self._peers.checked(peer.peer_id, decode(answer.claim)) if answer.claim else None
        except ClaimMessageError as error:
            log.debug("claim message invalid", peer=peer.peer_id, error=error)
            return None

    # --- for the router ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the umpire until cancelled."""
        await self._server.run()

    def answer(self, peer: PeerInfo, message: Message) -> bytes:
        """The claim of the answer to a peer's GET_PROVIDERS, b"" for none."""
        return self._server.answer(peer, message.key, message.claim) if message.claim else b""

    def take(self, peer: PeerInfo, message: Message) -> None:
        """A peer's ADD_PROVIDER."""
        if message.claim:
            self._server.take(peer, message.key, message.claim)

    def announced(self, peer_id: PeerId, places: Iterable[int]) -> None:
        """A peer, or this node, announced content."""
        self._server.announced(peer_id, places)

    @property
    def held(self) -> int:
        """The number of claims."""
        return len(self._server.umpire)

    @property
    def server(self) -> UmpireServer:
        """The umpire behind it, to be read only."""
        return self._server

    def state(self) -> dict[str, Any]:
        """The part of `/debug/state`."""
        return self._server.state()
