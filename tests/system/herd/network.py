"""Zones of hosts and one upstream, over links whose rate the kernel limits.

    10.84.1.0/24   the first zone, nodes from .11 on, behind a bridge
    10.84.2.0/24   the second one
    10.84.9.0/24   the upstream registry .11, behind one link that all nodes share

The hub routes between them. A token bucket (tc tbf) limits each direction of a node's link, and what the upstream
sends. iptables of the hub counts what passes from one zone to another.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.lab.namespaces import Namespace, ip, unique_prefix

FIRST_HOST = 11
NODES_PER_ZONE_MAX = 240
BURST_SECONDS, QUEUE_SECONDS = 0.002, 0.02
BURST_BYTES_MIN = 96 << 10  # above the kernel's largest segment, which tbf would divide otherwise
# on a slow link one large segment would fill the queue, and connections that lost one would get nothing for seconds
SLOW_MEGABITS, SEGMENT_BYTES = 100.0, 8 << 10
# the kernel has one table of neighbours for all namespaces; where it is full, packets are lost
NEIGHBOUR_BOUNDS = tuple(Path(f"/proc/sys/net/ipv4/neigh/default/gc_thresh{number}") for number in (3, 2, 1))
NEIGHBOURS_EACH = 2  # for each pair of nodes, with some that are stale
WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")  # of all nodes: one without polls its ingests
WATCHES_EACH = 2
HEADER_BYTES = 52  # IPv4 and TCP with timestamps; the kernel counts the header of a large segment once


@dataclass(frozen=True, slots=True)
class Rates:
    """Megabits per second: of all that leaves the upstream, and of each direction of a node's link."""

    upstream: float = 200.0
    link: float = 1000.0

    def scaled(self, factor: float) -> Rates:
        """The same ratio at another speed."""
        return Rates(self.upstream * factor, self.link * factor)

    @property
    def upstream_bytes(self) -> float:
        """Bytes per second."""
        return self.upstream * 125_000

    @property
    def link_bytes(self) -> float:
        """Bytes per second."""
        return self.link * 125_000


@dataclass(frozen=True, slots=True)
class HerdNetwork:
    """The hosts, by zone."""

    hub: Namespace
    upstream: Namespace
    zones: list[list[Namespace]]

    def limit(self, rates: Rates) -> None:
        """From now on links have these rates."""
        _shape(self.upstream, "eth0", rates.upstream)
        for number, zone in enumerate(self.zones, 1):
            for host, node in enumerate(zone):
                _shape(node, "eth0", rates.link)
                _shape(self.hub, f"v{number}-{host}", rates.link)

    def border_bytes(self) -> int:
        """TCP payload that has gone from one zone to another so far."""
        lines = self.hub.run("iptables", "-nvxL", "FORWARD").splitlines()[2:]
        counts = [[int(field) for field in line.split()[:2]] for line in lines]
        return sum(size - packets * HEADER_BYTES for packets, size in counts)


@contextmanager
def _room(nodes: int) -> Iterator[None]:
    """What the kernel limits for all namespaces together is enough for so many nodes."""
    wanted = dict.fromkeys(NEIGHBOUR_BOUNDS, NEIGHBOURS_EACH * nodes**2) | {WATCHES: 128 + WATCHES_EACH * nodes}
    before = {path: path.read_text() for path in wanted}
    try:
        for path, value in before.items():
            path.write_text(str(max(wanted[path], int(value))))
        yield
    finally:
        for path, value in before.items():
            path.write_text(value)


@contextmanager
def herd_network(zones: Sequence[int]) -> Iterator[HerdNetwork]:
    """As many nodes in each zone; removed at the end. Links have no limit before `limit`."""
    assert max(zones) <= NODES_PER_ZONE_MAX
    prefix = unique_prefix()
    hub, upstream = Namespace(f"{prefix}-hub", ""), Namespace(f"{prefix}-up", f"10.84.9.{FIRST_HOST}")
    groups = [
        [Namespace(f"{prefix}-z{zone}-{host}", f"10.84.{zone}.{FIRST_HOST + host}") for host in range(count)]
        for zone, count in enumerate(zones, 1)
    ]
    made: list[str] = []
    with _room(sum(zones)):
        try:
            for one in (hub, upstream, *(node for group in groups for node in group)):
                ip("netns", "add", one.name)
                made.append(one.name)
                ip("-n", one.name, "link", "set", "lo", "up")
            hub.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            _bridge(hub, 9, [upstream])
            for zone, group in enumerate(groups, 1):
                _bridge(hub, zone, group)
            for here, there in itertools.permutations(range(1, len(groups) + 1), 2):
                hub.run("iptables", "-A", "FORWARD", "-i", f"br{here}", "-o", f"br{there}")
            yield HerdNetwork(hub, upstream, groups)
        finally:
            for name in reversed(made):
                ip("netns", "del", name)


def _bridge(hub: Namespace, subnet: int, hosts: Sequence[Namespace]) -> None:
    bridge, gateway = f"br{subnet}", f"10.84.{subnet}.1"
    commands = [
        f"link add {bridge} type bridge",
        f"addr add {gateway}/24 dev {bridge}",
        f"link set {bridge} up",
    ]
    for number, host in enumerate(hosts):
        cable = f"v{subnet}-{number}"
        commands += [
            f"link add {cable} type veth peer name eth0 netns {host.name}",
            f"link set {cable} master {bridge} up",
        ]
    _batch(hub, commands)
    for host in hosts:
        _batch(host, [f"addr add {host.address}/24 dev eth0", "link set eth0 up", f"route add default via {gateway}"])


def _batch(namespace: Namespace, commands: Sequence[str]) -> None:
    subprocess.run(
        ["ip", "-n", namespace.name, "-batch", "-"],
        input="\n".join(commands), check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _shape(namespace: Namespace, device: str, megabits: float) -> None:
    rate = megabits * 125_000
    burst = max(int(rate * BURST_SECONDS), BURST_BYTES_MIN)
    limit = burst + max(int(rate * QUEUE_SECONDS), BURST_BYTES_MIN)
    shape = ["tbf", "rate", f"{megabits:.6f}mbit", "burst", str(burst), "limit", str(limit)]
    if megabits < SLOW_MEGABITS:
        ip("-n", namespace.name, "link", "set", "dev", device, "gso_max_size", str(SEGMENT_BYTES))
    subprocess.run(
        ["tc", "-n", namespace.name, "qdisc", "replace", "dev", device, "root", *shape],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


def sent_bytes(namespace: Namespace) -> int:
    """What has left a host's link, headers included."""
    return int(namespace.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"))


def cpu_idle_seconds() -> float:
    """Seconds that the cores of this machine had nothing to do, all together."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / 100
