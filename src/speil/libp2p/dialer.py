"""Dials, each a task of its own: whoever wants the same peer waits for the same dial.

A caller that is cancelled takes back its wish and nothing else. When the last caller has gone, the dial is cancelled,
and whoever comes then begins a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from speil.libp2p.connection import Connection
from speil.libp2p.error import ConnectionClosedError, Libp2pError, OwnLimitError, PeerUnreachableError, RefusedError
from speil.libp2p.transport import RawConnection, Transport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId

DIAL_ADDRESSES_MAX = 4  # of one peer; each further one only delays the verdict


class Upgrade(Protocol):
    """Makes a known connection of a raw one that went out."""

    async def __call__(self, raw: RawConnection, expected: PeerId | None, *, dialled: Multiaddr | None) -> Connection:
        """Raises Libp2pError."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to dial: a peer, or (without an id) whoever answers at the one address.

    `named`: the operator or the bootstrap named the address, not a peer.
    """

    peer_id: PeerId | None
    addresses: tuple[Multiaddr, ...]
    named: bool = False

    @property
    def key(self) -> PeerId | Multiaddr:
        """What callers that want the same have in common."""
        return self.peer_id or self.addresses[0]


class DialGuard(Protocol):
    """Says which addresses may be dialled, and hears how it went."""

    def begin(self, address: Multiaddr, *, named: bool) -> None:
        """Before a dial. Raises RefusedError, OwnLimitError."""

    def end(self, address: Multiaddr, *, named: bool, reached: bool) -> None:
        """After each dial that was let begin."""


class Dialer:
    """See the module. The tasks are in the group that `run_in` gives."""

    def __init__(self, transport: Transport, guard: DialGuard, upgrade: Upgrade) -> None:
        self._transport, self._guard, self._upgrade = transport, guard, upgrade
        self._running: dict[PeerId | Multiaddr, _Dial] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def run_in(self, tasks: asyncio.TaskGroup | None) -> None:
        """Dials are `tasks`' from now on; None: there are no new ones."""
        self._tasks = tasks

    @property
    def count(self) -> int:
        """Dials that callers wait for."""
        return len(self._running)

    async def dial(self, target: Target, timeout_seconds: float) -> Connection:
        """A new connection to `target`, or the one that others are dialling. Raises Libp2pError."""
        if self._tasks is None:
            raise ConnectionClosedError("the host is closing")
        dial = self._running.get(target.key)
        if dial is None:
            dial = self._running[target.key] = _Dial()
            dial.task = self._tasks.create_task(dial.run(lambda: self._try_all(target, timeout_seconds)))
            dial.task.add_done_callback(lambda _: self._forget(target.key, dial))
        dial.callers += 1
        try:
            await asyncio.wait((dial.task,))
        finally:
            dial.callers -= 1
            if not dial.callers and not dial.task.done():
                self._forget(target.key, dial)
                dial.task.cancel()
        return dial.result()

    def _forget(self, key: PeerId | Multiaddr, dial: _Dial) -> None:
        if self._running.get(key) is dial:
            del self._running[key]

    async def _try_all(self, target: Target, timeout_seconds: float) -> Connection:
        whom = target.peer_id.short if target.peer_id else "the peer"
        failure: Libp2pError | None = None
        for address in target.addresses[:DIAL_ADDRESSES_MAX]:
            try:
                return await self._try(address, target, timeout_seconds)
            except (RefusedError, OwnLimitError) as error:
                failure = failure or error  # says nothing about the peer: an address that was dialled counts more
            except Libp2pError as error:
                failure = error
        raise failure or PeerUnreachableError(f"no address of {whom}")

    async def _try(self, address: Multiaddr, target: Target, timeout_seconds: float) -> Connection:
        self._guard.begin(address, named=target.named)
        reached = False
        try:
            async with asyncio.timeout(timeout_seconds):
                raw = await self._transport.dial(address)
                connection = await self._upgrade(raw, target.peer_id, dialled=address)
            reached = True
            return connection
        except TimeoutError:
            raise PeerUnreachableError(f"{address} did not answer in {timeout_seconds:g} s") from None
        finally:
            self._guard.end(address, named=target.named, reached=reached)


class _Dial:
    """One dial and how many wait for it."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.callers = 0
        self._connection: Connection | None = None
        self._error: Exception | None = None

    async def run(self, attempt: Callable[[], Awaitable[Connection]]) -> None:
        try:
            self._connection = await attempt()
        except Exception as error:
            self._error = error  # it is the callers' to raise: the group goes on

    def result(self) -> Connection:
        """After the task's end. Raises what the dial raised."""
        if self._error:
            raise self._error
        if self._connection is None:
            raise ConnectionClosedError("the host is closing")
        return self._connection
