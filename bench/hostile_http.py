"""Attacks on a node's HTTP ports, by plain sockets. Each lasts its seconds and never opens more than it says."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ATTACKER = "127.32.9.9"
_PAUSE_SECONDS = 0.002


@dataclass(slots=True)
class World:
    """The target of an attack: the node, the ports that all nodes share, and what is asked for there."""

    host: str
    registry: int
    router: int
    metrics: int
    seconds: float
    keys: list[str]  # digests that an honest node holds, in the order in which the node's own pulls ask
    blob: str  # the digest of a large blob that the node holds itself
    began: float = field(default_factory=time.monotonic)
    steps: int = 0  # connections, messages or questions so far

    @property
    def goes_on(self) -> bool:
        """Whether the time is not up."""
        return time.monotonic() - self.began < self.seconds


def nothing(world: World) -> None:
    """No attack: what the machine and the bench itself cost."""
    time.sleep(world.seconds)
    world.steps += 1


def connections(world: World) -> None:
    """2,048 connections from one address, each with a request; what is closed comes again."""
    _hold(world, world.registry, 2048, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", lambda: ATTACKER)


def unread_blobs(world: World) -> None:
    """1,024 requests for a large blob, without a peer's header, whose bodies nobody takes."""
    request = f"GET /v2/x/y/blobs/{world.blob}?ns=registry.bench HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    _hold(world, world.registry, 1024, request, lambda: ATTACKER, receive_bytes=4096)


def idle_metrics(world: World) -> None:
    """6,000 connections to the metrics port from two hundred addresses, which send nothing."""
    numbers = itertools.count()
    _hold(world, world.metrics, 6000, b"", lambda: f"127.32.9.{1 + next(numbers) % 200}")


def malformed(world: World) -> None:
    """Request lines that are none, five on each of two hundred connections a second."""
    lines = (
        b"nonsense\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET / HTTP/9.9\r\nA b: c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    )
    for number in itertools.count():
        if not world.goes_on:
            return
        with contextlib.suppress(OSError), _connected(world.host, world.registry, ATTACKER) as client:
            client.sendall(lines[number % len(lines)] * 5)
            client.recv(1000)
            world.steps += 1
        time.sleep(0.005)


def half_open(world: World) -> None:
    """200 libp2p connections from two addresses whose handshake never begins."""
    numbers = itertools.count()
    _hold(world, world.router, 200, b"", lambda: f"127.32.9.{8 + next(numbers) % 2}")


def _hold(
    world: World, port: int, count: int, request: bytes, source: Callable[[], str], *, receive_bytes: int = 0
) -> None:
    """Keep `count` connections open, and open again what the node closes."""
    held: list[socket.socket] = []
    try:
        while world.goes_on:
            if len(held) < count:
                with contextlib.suppress(OSError):
                    client = _open(world.host, port, source(), receive_bytes)
                    held.append(client)
                    client.sendall(request)
                    world.steps += 1
            time.sleep(_PAUSE_SECONDS if len(held) < count else 0.2)
            if len(held) >= count or len(held) % 64 == 0:
                held[:] = [one for one in held if not _has_ended(one, takes=not receive_bytes)]
    finally:
        for one in held:
            one.close()


def _has_ended(client: socket.socket, *, takes: bool) -> bool:
    try:
        client.setblocking(False)
        data = client.recv(1 << 16, 0 if takes else socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        client.close()
        return True
    if not data:
        client.close()
    return not data


def _open(host: str, port: int, source: str, receive_bytes: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(2)
    try:
        client.bind((source, 0))
        client.connect((host, port))
    except OSError:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _connected(host: str, port: int, source: str) -> Iterator[socket.socket]:
    client = _open(host, port, source)
    try:
        yield client
    finally:
        client.close()


ATTACKS: dict[str, Callable[[World], None]] = {
    "nothing": nothing,
    "connections": connections,
    "unread-blobs": unread_blobs,
    "idle-metrics": idle_metrics,
    "malformed": malformed,
    "half-open": half_open,
}
