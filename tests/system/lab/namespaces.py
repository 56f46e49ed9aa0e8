"""Hosts as network namespaces on one bridge: a hub at 10.77.N.1, nodes from 10.77.N.11 on."""

from __future__ import annotations

import ctypes
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

ASK_SECONDS_MAX = 10.0
_numbers = count()
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Namespace:
    """A host of the lab."""

    name: str
    address: str

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process in it."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *argv], **options)

    def run(self, *argv: str) -> str:
        """Run a command in it; its output."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def set_link(self, up: bool) -> None:
        """Plug or pull the network cable."""
        ip("-n", self.name, "link", "set", "eth0", "up" if up else "down")


@contextmanager
def namespaces(node_count: int) -> Iterator[tuple[Namespace, list[Namespace]]]:
    """A hub and nodes, which reach each other; removed at the end."""
    prefix, subnet = unique_prefix(), os.getpid() % 200 + 20
    hub = Namespace(f"{prefix}-hub", f"10.77.{subnet}.1")
    nodes = [Namespace(f"{prefix}-n{number}", f"10.77.{subnet}.{10 + number}") for number in range(1, node_count + 1)]
    made: list[str] = []
    try:
        for one in (hub, *nodes):
            ip("netns", "add", one.name)
            made.append(one.name)
            ip("-n", one.name, "link", "set", "lo", "up")
        ip("-n", hub.name, "link", "add", "br0", "type", "bridge")
        ip("-n", hub.name, "addr", "add", f"{hub.address}/24", "dev", "br0")
        ip("-n", hub.name, "link", "set", "br0", "up")
        for number, node in enumerate(nodes, 1):
            ip("-n", hub.name, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", node.name)
            ip("-n", hub.name, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            ip("-n", node.name, "link", "set", "eth0", "up")
        yield hub, nodes
    finally:
        for name in reversed(made):
            ip("netns", "del", name)


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """For as long as this lasts, sockets that this thread makes and processes that it starts are in the namespace."""
    with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", namespace.name).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def get_inside(namespace: Namespace, url: str, *, seconds_max: float = ASK_SECONDS_MAX) -> tuple[int, bytes]:
    """GET from inside a namespace; status 0 where nobody answers, or the namespace is gone."""
    try:
        with inside(namespace):
            return get(url, seconds_max=seconds_max)
    except OSError:
        return 0, b""


def get(url: str, *, seconds_max: float) -> tuple[int, bytes]:
    """GET from this host; status 0 where nobody answers."""
    try:
        with _opener.open(url, timeout=seconds_max) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def _enter(namespace: int) -> None:
    # os.setns comes with Python 3.12
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def unique_prefix() -> str:
    """What the names of a lab's namespaces begin with."""
    return f"speil-{os.getpid()}-{next(_numbers)}"


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
