"""Finds the first peers, and finds them again when the last is gone.

Persisted peers are dialled while the configured kind is asked; whoever answers is asked for more (`refresh`). With
nobody reached the attempts slow down to one in ten seconds. The first round that the source answered is the decision
which readiness waits for: peers reached, or alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from random import Random

from speil.kad.known_peers import KnownPeers
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.observe.seldom import Seldom
from speil.routing.bootstrap.base import BootstrapError, Bootstrapper
from speil.routing.network import NetworkError, PeerNetwork
from speil.routing.peerstore import PEERS_MAX, Peerstore

BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.05, 10.0  # Spegel's
AGAIN_SECONDS = 30 * 60.0  # Spegel's: joins meshes that grew apart
DIALS_MAX = 60  # in one round: what the source names, and persisted peers
KNOWN_DIALS_MAX = 40  # of them for persisted peers: the source keeps a share
UNREACHABLE_SECONDS = 10 * 60.0  # between equal lines: the first node of a mesh may wait for hours
_NAMED_MAX = 4  # addresses in a line of the log
MEMBERS_MAX = 256  # remembered as named by the source or known from before; a few rounds of DIALS_MAX
SAVE_SECONDS = 60.0  # how often the list of known peers is written while it changes

log = get_log("bootstrap")


class Bootstrap:
    """The driver; `decided` is what readiness asks."""

    def __init__(self, bootstrapper: Bootstrapper, peerstore: Peerstore, metrics: Metrics, rng: Random) -> None:
        self._bootstrapper, self._peerstore, self._metrics, self._rng = bootstrapper, peerstore, metrics, rng
        self.decided = False
        self._met = KnownPeers(PEERS_MAX)
        self._members: dict[PeerId, None] = {}
        self._changed = False
        self._wake = asyncio.Event()
        self._failure, self._unreachable = Seldom(), Seldom(UNREACHABLE_SECONDS)

    def wake(self) -> None:
        """Look for peers now: the last one is gone."""
        self._wake.set()

    def met(self, peer: PeerInfo, host: str, *, is_near: bool, is_here: bool) -> None:
        """Remember a peer of the mesh for the next start; see `KnownPeers`."""
        self._met.add(peer, host, is_near=is_near, is_here=is_here)
        self._changed = True

    def is_member(self, peer_id: PeerId) -> bool:
        """Whether a peer is named by the source, or known from before this start."""
        return peer_id in self._members

    async def run(self, network: PeerNetwork, known: Callable[[], int], refresh: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled. `known` says how many peers the table holds, `refresh` asks them for more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bootstrapper.run(lambda: network.local))
            group.create_task(self._keep_saving())
            await self._keep_bootstrapping(network, known, refresh)

    async def _keep_bootstrapping(
        self, network: PeerNetwork, known: Callable[[], int], refresh: Callable[[], Awaitable[None]]
    ) -> None:
        persisted = self._peerstore.load()
        backoff = BACKOFF_SECONDS_MIN
        joined = False

        async def join() -> None:
            nonlocal joined
            if known():
                joined = True
                await refresh()
                self.decided = True

        while True:
            self._wake.clear()
            joined = False
            answered = await self._round(network, persisted, join)
            if not joined:
                await join()
            if known():
                wait, backoff = AGAIN_SECONDS, BACKOFF_SECONDS_MIN
            else:
                if answered and not self.decided:
                    self.decided = True
                    log.info("no other node is reachable: this one is alone for now", kind=self._bootstrapper.kind)
                wait, backoff = backoff * (1 + self._rng.random()), min(backoff * 2, BACKOFF_SECONDS_MAX)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _round(
        self, network: PeerNetwork, persisted: Sequence[Multiaddr], join: Callable[[], Awaitable[None]]
    ) -> bool:
        """Dial who is known from before and, beside it, ask the source and dial whom it names. Whether it answered.

        `join` is called when somebody was reached: known peers wait for no source, which may hang.
        """
        known = list(dict.fromkeys([*persisted, *self._addresses()]))[:KNOWN_DIALS_MAX]

        async def known_ones() -> int:
            reached = await self._dial_all(network, known, members=persisted)
            if reached:
                await join()
            return reached

        async with asyncio.TaskGroup() as group:
            task = group.create_task(known_ones())
            answered, found = await self._ask(network)
            named = found[: DIALS_MAX - len(known)]
            reached = await self._dial_all(network, named, members=named)
            if reached:
                await join()
        total = reached + task.result()
        if answered:
            self._metrics.bootstrap_attempts.labels(self._bootstrapper.kind, "ok" if total else "empty").inc()
            own = {address.tcp for address in network.local.addresses}
            if not reached and (others := [address for address in found if address.tcp not in own]):
                self._say_unreachable(others)
            elif reached:
                self._unreachable.over()
        return answered

    async def _ask(self, network: PeerNetwork) -> tuple[bool, list[Multiaddr]]:
        """Whether the source answered, and whom to dial."""
        kind = self._bootstrapper.kind
        try:
            found = await self._bootstrapper.find(network.local)
        except BootstrapError as error:
            self._metrics.bootstrap_attempts.labels(kind, "error").inc()
            if not error.told and self._failure.due(str(error)):
                log.warning("bootstrap failed, trying again", kind=kind, error=error)
            return False, list(error.addresses)
        if self._failure.over():
            log.info("the source of first peers answers again", kind=kind)
        return True, found

    async def _dial_all(
        self, network: PeerNetwork, addresses: Iterable[Multiaddr], *, members: Collection[Multiaddr]
    ) -> int:
        """Dial them; how many answered. Whoever answers at an address of `members` is one (`is_member`)."""
        own = {address.tcp for address in network.local.addresses}
        targets = [one for one in dict.fromkeys(addresses) if one.tcp not in own]

        async def dial(address: Multiaddr) -> bool:
            if address.peer_id and address in members:
                self._is_named(address.peer_id)  # before it joins: nobody else can prove that id
            try:
                if (found := await network.dial(address)) is None:
                    return False
            except NetworkError as error:
                log.debug("a first peer can't be reached", address=address, error=error)
                return False
            if address in members:
                self._is_named(found.peer_id)
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(dial(address)) for address in targets]
        return sum(task.result() for task in tasks)

    def _is_named(self, peer_id: PeerId) -> None:
        self._members.pop(peer_id, None)
        self._members[peer_id] = None
        if len(self._members) > MEMBERS_MAX:
            del self._members[next(iter(self._members))]

    def _latest_first(self) -> list[PeerInfo]:
        return list(self._met)[::-1]

    def _addresses(self) -> list[Multiaddr]:
        return [peer.addresses[0].with_peer_id(peer.peer_id) for peer in self._latest_first()]

    def _say_unreachable(self, found: Sequence[Multiaddr]) -> None:
        """Whom the source names is not there, or is no peer of this mesh."""
        named = ", ".join(str(address) for address in found[:_NAMED_MAX])
        if self._unreachable.due(named):
            log.warning("no peer that bootstrap names can be joined, trying again", named=named, count=len(found))

    async def _keep_saving(self) -> None:
        try:
            while True:
                await asyncio.sleep(SAVE_SECONDS)
                self._save()
        finally:
            self._save()

    def _save(self) -> None:
        if self._changed:
            self._changed = False
            self._peerstore.save(self._latest_first())
