"""Hosts as network namespaces on one bridge, with veth between them (root): 10.78.N.1 and up.

On loopback sending and receiving are one step. Here a sender has a full socket, an acknowledgement comes later, and a
link may have a speed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_COMMAND_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace."""

    name: str
    address: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For as long as this lasts, sockets of this thread and processes that it starts are in the namespace."""
        with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", self.name).open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    @contextmanager
    def link_of(self, speed: str) -> Iterator[None]:
        """For as long as this lasts, its link sends at most at this speed (as tc writes it: 1gbit)."""
        _ip("tc", "-n", self.name, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", speed, "burst", "256kb",
            "latency", "20ms")  # fmt: skip
        try:
            yield
        finally:
            _ip("tc", "-n", self.name, "qdisc", "del", "dev", "eth0", "root")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Hosts that reach each other; removed at the end."""
    prefix, subnet = f"speil-bench-{os.getpid()}", os.getpid() % 200 + 20
    switch = f"{prefix}-switch"
    found = [Host(f"{prefix}-{number}", f"10.78.{subnet}.{number}") for number in range(1, count + 1)]
    made: list[str] = []
    try:
        for name in (switch, *(host.name for host in found)):
            _ip("ip", "netns", "add", name)
            made.append(name)
            _ip("ip", "-n", name, "link", "set", "lo", "up")
        _ip("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("ip", "-n", switch, "link", "set", "br0", "up")
        for number, host in enumerate(found, 1):
            _ip(
                "ip",
                "-n",
                switch,
                "link",
                "add",
                f"v{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.name,
            )
            _ip("ip", "-n", switch, "link", "set", f"v{number}", "master", "br0", "up")
            _ip("ip", "-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("ip", "-n", host.name, "link", "set", "eth0", "up")
        yield found
    finally:
        for name in reversed(made):
            _ip("ip", "netns", "del", name)


def _enter(namespace: int) -> None:
    # os.setns comes with Python 3.12
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=_COMMAND_SECONDS_MAX)
