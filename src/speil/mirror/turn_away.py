"""When no file descriptor is left, new connections are closed instead of kept waiting.

asyncio leaves them in the kernel's queue and tries again every second; containerd 1.6 would wait in that queue for
ever, and block one of the few downloads of its node. So two descriptors are kept in reserve: with them a connection is
accepted and closed at once, and the client goes elsewhere. Before that, idle connections are closed (`relieve`).
"""

from __future__ import annotations

import asyncio
import os
import resource
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any

from speil.interface_addresses import NO_DESCRIPTOR
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom

SPARE = 2  # one to look at the queue with, one for the connection that is closed
AGAIN_SECONDS = 0.05  # how long a connection waits at most while there is none
ASYNCIO_RETRY_SECONDS = 1.0  # asyncio listens again after that
TURNED_AWAY_MAX = 512  # in a row: the length of the kernel's queue

log = get_log("daemon")


class TurnAway:
    """An exception handler for the event loop (`handle`); other exceptions go to the default one. Close it."""

    def __init__(self) -> None:
        self.relieve: list[Callable[[], None]] = []  # each closes connections that are idle
        self._spare: list[int] = []
        self._watched: set[int] = set()  # listening descriptors
        self._lines = Seldom()
        self._refill()

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """See `loop.set_exception_handler`."""
        error, listening = context.get("exception"), context.get("socket")
        if not (isinstance(error, OSError) and error.errno in NO_DESCRIPTOR and isinstance(listening, TransportSocket)):
            loop.default_exception_handler(context)
            return
        self._log()
        if listening.fileno() not in self._watched:  # asyncio reports it once for each connection it tried to accept
            self._watched.add(listening.fileno())
            for relieve in self.relieve:
                relieve()
            self._watch(loop, listening, listening.fileno(), loop.time() + ASYNCIO_RETRY_SECONDS)

    def close(self) -> None:
        """Close the reserve."""
        while self._spare:
            os.close(self._spare.pop())

    def _watch(self, loop: asyncio.AbstractEventLoop, listening: TransportSocket, number: int, until: float) -> None:
        if listening.fileno() == number and loop.time() + AGAIN_SECONDS < until and self._is_exhausted():
            self._turn_away(listening)
            loop.call_later(AGAIN_SECONDS, self._watch, loop, listening, number, until)
        else:
            self._watched.discard(number)

    def _turn_away(self, listening: TransportSocket) -> None:
        self.close()
        try:
            with listening.dup() as queue:
                queue.setblocking(False)
                for _ in range(TURNED_AWAY_MAX):
                    connection, _ = queue.accept()
                    connection.close()
        except OSError:
            pass  # the queue is empty, or another part took the free descriptors
        finally:
            self._refill()

    def _is_exhausted(self) -> bool:
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return True
        return False

    def _refill(self) -> None:
        try:
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # tried again later

    def _log(self) -> None:
        if self._lines.due(""):
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error("no file descriptor is left: connections are turned away; raise LimitNOFILE", limit=limit)
