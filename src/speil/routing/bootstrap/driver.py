"""Finds the first peers, and finds them again when the last is gone.

Persisted peers and the configured kind are asked together; whoever answers is asked for more (`refresh`). With nobody
reached the attempts slow down to one in ten seconds. The first round that the source answered is the decision which
readiness waits for: peers reached, or alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.base import BootstrapError, Bootstrapper
from speil.routing.network import NetworkError, PeerNetwork
from speil.routing.peerstore import PEERS_MAX, Peerstore

BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.05, 10.0  # Spegel's
AGAIN_SECONDS = 30 * 60.0  # Spegel's: joins meshes that grew apart
DIALS_MAX = 60  # in one round: what the source names, and persisted peers
SAVE_SECONDS = 60.0  # how often the list of known peers is written while it changes

log = get_log("bootstrap")


class Bootstrap:
    """The driver; `decided` is what readiness asks."""

    def __init__(self, bootstrapper: Bootstrapper, peerstore: Peerstore, metrics: Metrics, rng: Random) -> None:
        self._bootstrapper, self._peerstore, self._metrics, self._rng = bootstrapper, peerstore, metrics, rng
        self.decided = False
        self._met: dict[PeerId, PeerInfo] = {}
        self._changed = False
        self._wake = asyncio.Event()
        self._last_failure = ""

    def wake(self) -> None:
        """Look for peers now: the last one is gone."""
        self._wake.set()

    def met(self, peer: PeerInfo) -> None:
        """Remember a peer of the mesh for the next start."""
        self._met.pop(peer.peer_id, None)
        self._met[peer.peer_id] = peer
        while len(self._met) > PEERS_MAX:
            del self._met[next(iter(self._met))]
        self._changed = True

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
        while True:
            self._wake.clear()
            answered = await self._round(network, [*persisted, *self._addresses()])
            if known():
                await refresh()
                self.decided = True
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

    async def _round(self, network: PeerNetwork, persisted: list[Multiaddr]) -> bool:
        """Ask the source and dial everybody; whether the source answered."""
        kind = self._bootstrapper.kind
        try:
            found = await self._bootstrapper.find(network.local)
        except BootstrapError as error:
            self._metrics.bootstrap_attempts.labels(kind, "error").inc()
            if not error.told:
                self._say_once(str(error))
            await self._dial_all(network, [*persisted, *error.addresses])
            return False
        reached = await self._dial_all(network, [*found, *persisted])
        self._metrics.bootstrap_attempts.labels(kind, "ok" if reached else "empty").inc()
        if reached:
            self._last_failure = ""
        return True

    async def _dial_all(self, network: PeerNetwork, addresses: Iterable[Multiaddr]) -> int:
        own = {(address.tcp, None) for address in network.local.addresses}
        targets = [one for one in dict.fromkeys(addresses) if (one.tcp, None) not in own][:DIALS_MAX]

        async def dial(address: Multiaddr) -> bool:
            try:
                return await network.dial(address) is not None
            except NetworkError as error:
                log.debug("a first peer can't be reached", address=address, error=error)
                return False

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(dial(address)) for address in targets]
        return sum(task.result() for task in tasks)

    def _addresses(self) -> list[Multiaddr]:
        return [peer.addresses[0].with_peer_id(peer.peer_id) for peer in reversed(self._met.values())]

    def _say_once(self, failure: str) -> None:
        if failure != self._last_failure:
            self._last_failure = failure
            log.warning("bootstrap failed, trying again", kind=self._bootstrapper.kind, error=failure)

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
            self._peerstore.save(reversed(self._met.values()))
