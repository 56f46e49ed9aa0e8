"""Hosts as network namespaces on one bridge: a hub at 10.77.N.1, nodes from 10.77.N.11 on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

_numbers = count()


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
        _ip("-n", self.name, "link", "set", "eth0", "up" if up else "down")


@contextmanager
def namespaces(node_count: int) -> Iterator[tuple[Namespace, list[Namespace]]]:
    """A hub and nodes, which reach each other; removed at the end."""
    prefix, subnet = f"speil-{os.getpid()}-{next(_numbers)}", os.getpid() % 200 + 20
    hub = Namespace(f"{prefix}-hub", f"10.77.{subnet}.1")
    nodes = [Namespace(f"{prefix}-n{number}", f"10.77.{subnet}.{10 + number}") for number in range(1, node_count + 1)]
    made: list[str] = []
    try:
        for one in (hub, *nodes):
            _ip("netns", "add", one.name)
            made.append(one.name)
            _ip("-n", one.name, "link", "set", "lo", "up")
        _ip("-n", hub.name, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub.name, "addr", "add", f"{hub.address}/24", "dev", "br0")
        _ip("-n", hub.name, "link", "set", "br0", "up")
        for number, node in enumerate(nodes, 1):
            _ip("-n", hub.name, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", node.name)
            _ip("-n", hub.name, "link", "set", f"v{number}", "master", "br0", "up")
            _ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            _ip("-n", node.name, "link", "set", "eth0", "up")
        yield hub, nodes
    finally:
        for name in reversed(made):
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
