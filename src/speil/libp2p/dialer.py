"""Dials. Callers that want the same peer share one dial, which is a task of its own.

Cancelling a caller ends its wait and nothing else. When the last caller has gone the dial is cancelled, and the next
caller starts a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from speil.libp2p.connection import Connection
from speil.libp2p.error import ConnectionClosedError, Libp2pError, OwnLimitError, PeerUnreachableError, RefusedError
from speil.libp2p.task_scope import TaskScope
from speil.libp2p.transport import RawConnection, Transport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId

DIAL_ADDRESSES_MAX = 4  # of one peer; each further one only delays the result


class Upgrade(Protocol):
    """Makes an identified connection of a raw one."""

    async def __call__(self, raw: RawConnection, expected: PeerId | None, *, dialled: Multiaddr | None) -> Connection:
        """`expected` is the peer that was dialled, `dialled` the address; None for an inbound one. Raises Libp2pError.

        `raw` is closed where this raises or is cancelled.
        """


@dataclass(frozen=True, slots=True)
class Target:
    """What to dial: a peer, or without an id any peer that answers at the one address.

    `named`: the operator or the bootstrap named the address, not a peer.
    """

    peer_id: PeerId | None
    addresses: tuple[Multiaddr, ...]
    named: bool = False

    @property
    def key(self) -> PeerId | Multiaddr:
        """Callers with equal keys share a dial."""
        return self.peer_id or self.addresses[0]


class DialGuard(Protocol):
    """Decides which addresses may be dialled, and learns the outcome."""

    def begin(self, address: Multiaddr, *, named: bool) -> None:
        """Call before a dial. Raises RefusedError, OwnLimitError; the address is not dialled then."""

    def end(self, address: Multiaddr, *, named: bool, reached: bool) -> None:
        """Call after each dial that `begin` allowed."""


class Dialer:
    """Dials while it is entered; its end cancels them."""

    def __init__(self, transport: Transport, guard: DialGuard, upgrade: Upgrade) -> None:
        self._transport, self._guard, self._upgrade = transport, guard, upgrade
        self._running: dict[PeerId | Multiaddr, _Dial] = {}
        self._tasks = TaskScope()

    async def __aenter__(self) -> Dialer:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.__aexit__(None, None, None)

    @property
    def count(self) -> int:
        """Dials that callers wait for."""
        return len(self._running)

    async def dial(self, target: Target, timeout_seconds: float) -> Connection:
        """A new connection to `target`, or that of a dial which is under way; `timeout_seconds` are for each address.

        A dial that is under way keeps its own time limit. Raises Libp2pError.
        """
        dial = self._running.get(target.key)
        if dial is None:
            dial = _Dial()
            dial.task = self._tasks.start(dial.run(lambda: self._try_all(target, timeout_seconds)))
            dial.task.add_done_callback(lambda _: self._forget(target.key, dial))
            self._running[target.key] = dial
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
                # It says nothing about the peer: the error of an address that was dialled is kept.
                failure = failure or error
            except Libp2pError as error:
                failure = error
        raise failure or PeerUnreachableError(f"{whom} has no address")

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
    """One dial and the number of callers that wait for it."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.callers = 0
        self._connection: Connection | None = None
        self._error: Exception | None = None

    async def run(self, attempt: Callable[[], Awaitable[Connection]]) -> None:
        try:
            self._connection = await attempt()
        except Exception as error:
            self._error = error  # the callers raise it; the scope goes on

    def result(self) -> Connection:
        """Call when the task has ended. Raises what the dial raised."""
        if self._error:
            raise self._error
        if self._connection is None:
            raise ConnectionClosedError("the host is closing")
        return self._connection
