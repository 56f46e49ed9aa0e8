"""Finds the first peers, and finds peers again when the last one is gone.

Each round dials the stored peers and, at the same time, the addresses from the source. Peers that answer are asked for
more (`refresh`). Without success the rounds slow down to one in ten seconds. Readiness waits for the first round in
which the source answered: then either peers were reached, or no other node exists.
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
from speil.routing.series import BootstrapSeries

BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.05, 10.0  # Spegel's
AGAIN_SECONDS = 30 * 60.0  # Spegel's: it joins meshes that were separated
DIALS_MAX = 60  # in one round: addresses of the source and stored peers
KNOWN_DIALS_MAX = 40  # of them for stored peers
UNREACHABLE_SECONDS = 10 * 60.0  # between equal log lines: the first node of a mesh may wait for hours
_NAMED_MAX = 4  # addresses in a log line
MEMBERS_MAX = 256  # remembered peers from the source or the stored list; a few rounds of DIALS_MAX
SAVE_SECONDS = 60.0  # between two writes of the list of known peers

log = get_log("bootstrap")


class Bootstrap:
    """The driver. `decided`: the first round in which the source answered has ended."""

    def __init__(self, bootstrapper: Bootstrapper, peerstore: Peerstore, metrics: Metrics, rng: Random) -> None:
        self._bootstrapper, self._peerstore, self._rng = bootstrapper, peerstore, rng
        self._series = metrics.of(BootstrapSeries)
        self.decided = False
        self._met = KnownPeers(PEERS_MAX)
        self._members: dict[PeerId, None] = {}
        self._changed = False
        self._wake = asyncio.Event()
        self._failure, self._unreachable = Seldom(), Seldom(UNREACHABLE_SECONDS)

    def wake(self) -> None:
        """Start a round now: the last peer is gone."""
        self._wake.set()

    def met(self, peer: PeerInfo, host: str, *, is_near: bool, is_here: bool) -> None:
        """Store a peer of the mesh for the next start; see `KnownPeers.add`."""
        self._met.add(peer, host, is_near=is_near, is_here=is_here)
        self._changed = True

    def is_member(self, peer_id: PeerId) -> bool:
        """Whether a peer is from the source or from the stored list."""
        return peer_id in self._members

    async def run(self, network: PeerNetwork, known: Callable[[], int], refresh: Callable[[], Awaitable[None]]) -> None:
        """Keep this node in the mesh until cancelled.

        Raises what the source's `run` raises (BootstrapError), in an ExceptionGroup.

        known: the number of peers in the routing table.
        refresh: asks them for more.
        """
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
                    log.info("no other node reachable", kind=self._bootstrapper.kind)
                wait, backoff = backoff * (1 + self._rng.random()), min(backoff * 2, BACKOFF_SECONDS_MAX)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _round(
        self, network: PeerNetwork, persisted: Sequence[Multiaddr], join: Callable[[], Awaitable[None]]
    ) -> bool:
        """Dial the stored peers and, at the same time, the addresses from the source; whether the source answered.

        `join` is called when a peer was reached. Stored peers do not wait for the source, which may hang.
        """
        known = list(dict.fromkeys([*persisted, *self._addresses()]))[:KNOWN_DIALS_MAX]

        async def dial_known() -> int:
            reached = await self._dial_all(network, known, members=persisted)
            if reached:
                await join()
            return reached

        async with asyncio.TaskGroup() as group:
            task = group.create_task(dial_known())
            answered, found = await self._ask(network)
            named = found[: DIALS_MAX - len(known)]
            reached = await self._dial_all(network, named, members=named)
            if reached:
                await join()
        total = reached + task.result()
        if answered:
            self._series.attempts.labels(self._bootstrapper.kind, "ok" if total else "empty").inc()
            own = {address.tcp for address in network.local.addresses}
            if not reached and (others := [address for address in found if address.tcp not in own]):
                self._log_unreachable(others)
            elif reached:
                self._unreachable.over()
        return answered

    async def _ask(self, network: PeerNetwork) -> tuple[bool, list[Multiaddr]]:
        """Whether the source answered, and the addresses to dial."""
        kind = self._bootstrapper.kind
        try:
            found = await self._bootstrapper.find(network.local)
        except BootstrapError as error:
            self._series.attempts.labels(kind, "error").inc()
            if not error.logged and self._failure.due(str(error)):
                log.warning("bootstrap failed, retrying", kind=kind, error=error)
            return False, list(error.addresses)
        if self._failure.over():
            log.info("bootstrap source answers again", kind=kind)
        return True, found

    async def _dial_all(
        self, network: PeerNetwork, addresses: Iterable[Multiaddr], *, members: Collection[Multiaddr]
    ) -> int:
        """Dial addresses; how many answered. A peer that answers at one of `members` is a member (`is_member`)."""
        own = {address.tcp for address in network.local.addresses}
        targets = [one for one in dict.fromkeys(addresses) if one.tcp not in own]

        async def dial(address: Multiaddr) -> bool:
            if address.peer_id and address in members:
                self._add_member(address.peer_id)  # before it joins: no other peer can prove that id
            try:
                if (found := await network.dial(address)) is None:
                    return False
            except NetworkError as error:
                log.debug("bootstrap peer can't be reached", address=address, error=error)
                return False
            if address in members:
                self._add_member(found.peer_id)
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(dial(address)) for address in targets]
        return sum(task.result() for task in tasks)

    def _add_member(self, peer_id: PeerId) -> None:
        self._members.pop(peer_id, None)
        self._members[peer_id] = None
        if len(self._members) > MEMBERS_MAX:
            del self._members[next(iter(self._members))]

    def _latest_first(self) -> list[PeerInfo]:
        return list(self._met)[::-1]

    def _addresses(self) -> list[Multiaddr]:
        return [peer.addresses[0].with_peer_id(peer.peer_id) for peer in self._latest_first()]

    def _log_unreachable(self, found: Sequence[Multiaddr]) -> None:
        """No address of the source answers, or none is a peer of this mesh."""
        named = ", ".join(str(address) for address in found[:_NAMED_MAX])
        if self._unreachable.due(named):
            log.warning("no bootstrap peer can be joined, retrying", named=named, count=len(found))

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
