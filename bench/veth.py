"""Hosts as network namespaces with veth between them (root), and links with a speed.

On loopback sending and receiving are one step. Here a sender has a full socket, an acknowledgement comes later, and a
link may have a speed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.lab.namespaces import Namespace, namespaces

_COMMAND_SECONDS_MAX = 30


@contextmanager
def hosts(count: int) -> Iterator[list[Namespace]]:
    """Hosts that reach each other; removed at the end."""
    with namespaces(count) as (_, nodes):
        yield nodes


@contextmanager
def link_of(host: Namespace, speed: str) -> Iterator[None]:
    """For as long as this lasts, the link of `host` sends at most at this speed (as tc writes it: 1gbit)."""
    _tc(host, "add", "dev", "eth0", "root", "tbf", "rate", speed, "burst", "256kb", "latency", "20ms")
    try:
        yield
    finally:
        _tc(host, "del", "dev", "eth0", "root")


def _tc(host: Namespace, *arguments: str) -> None:
    subprocess.run(
        ["tc", "-n", host.name, "qdisc", *arguments], check=True, capture_output=True, timeout=_COMMAND_SECONDS_MAX
    )
