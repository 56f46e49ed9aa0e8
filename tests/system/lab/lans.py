"""Two regions, each a bridge of its own, and what both reach, joined by one router.

    10.81.1.0/24  regiona: nodes .11 .12 .13
    10.81.2.0/24  regionb: nodes .11 .12 .13, and .66 for whoever does not belong there
    10.81.9.0/24  outside: the upstream registry .11, the API server .12, the operator .13

The bridges are in the router's namespace, and it routes whatever comes in on them into a TUN device. There is no
other way between two networks than the process that reads it (`router`).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.system.lab.capture import Capture, Packet
from tests.system.lab.namespaces import Namespace, inside, ip, unique_prefix
from tests.system.lab.processes import LabProcess

NETWORKS = {"regiona": "10.81.1.0/24", "regionb": "10.81.2.0/24", "outside": "10.81.9.0/24"}
REGIONS = ("regiona", "regionb")
HOSTS = {"regiona": (11, 12, 13), "regionb": (11, 12, 13, 66), "outside": (11, 12, 13)}
DELAY_SECONDS = 0.04  # of every packet from one region to the other
_TUN, _TABLE = "tun0", "100"
_ETH_P_ALL, _SO_RCVBUFFORCE = 3, 33
_TAP_BYTES = 32 << 20  # frames wait here until they are looked at


@dataclass(frozen=True, slots=True)
class Lans:
    """The hosts by network, the router, and what it saw."""

    router: Namespace
    hosts: dict[str, list[Namespace]]
    capture: Capture

    def nodes(self, region: str) -> list[Namespace]:
        """A region's three nodes."""
        return self.hosts[region][:3]

    @property
    def stranger(self) -> Namespace:
        """A host in regionb's network that belongs to no region."""
        return self.hosts["regionb"][3]

    @property
    def upstream(self) -> Namespace:
        """Where the registry is."""
        return self.hosts["outside"][0]

    @property
    def api_server(self) -> Namespace:
        """Where the control plane is."""
        return self.hosts["outside"][1]

    @property
    def operator(self) -> Namespace:
        """Where the test itself looks from."""
        return self.hosts["outside"][2]

    def crossings(self, mark: int) -> list[Packet]:
        """Packets since `mark` whose ends are in different regions."""
        return [
            packet
            for packet in self.capture.since(mark)
            if {network_of(packet.source), network_of(packet.target)} == set(REGIONS)
        ]

    def tap(self, host: Namespace) -> socket.socket:
        """A socket that reads every frame on a host's cable, as somebody in its network can who listens there."""
        with inside(self.router):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BYTES)
        tap.bind((_cable(host), 0))
        tap.setblocking(False)
        return tap


def network_of(address: str) -> str:
    """The network that an address is in; "" for others."""
    return next((name for name, one in NETWORKS.items() if ip_address(address) in ip_network(one)), "")


@contextmanager
def lans(folder: Path) -> Iterator[Lans]:
    """The networks, with their router running; removed at the end."""
    prefix = unique_prefix()
    router = Namespace(f"{prefix}-router", "")
    hosts = {
        name: [Namespace(f"{prefix}-{name}-{number}", _address(name, number)) for number in numbers]
        for name, numbers in HOSTS.items()
    }
    argv = [sys.executable, str(Path(__file__).with_name("router.py")), _TUN, str(folder / "router.pcap")]
    process = LabProcess(
        router, [*argv, str(DELAY_SECONDS), *(NETWORKS[one] for one in REGIONS)], folder / "router.log"
    )
    made: list[Namespace] = []
    try:
        for one in (router, *(host for group in hosts.values() for host in group)):
            ip("netns", "add", one.name)
            made.append(one)
            ip("-n", one.name, "link", "set", "lo", "up")
        _switch_routing_on(router)
        for name, group in hosts.items():
            _make_lan(router, name, group)
        process.start()
        yield Lans(router, hosts, Capture(folder / "router.pcap"))
    finally:
        process.stop()
        for one in reversed(made):
            ip("netns", "del", one.name)


def _switch_routing_on(router: Namespace) -> None:
    # a packet comes back from the TUN device with the source it had: no path filter may drop it
    for key, value in (("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")):
        router.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}")
    for key in ("conf/all/send_redirects", "conf/default/send_redirects"):
        router.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/{key}")
    ip("-n", router.name, "tuntap", "add", "dev", _TUN, "mode", "tun")
    ip("-n", router.name, "link", "set", _TUN, "txqueuelen", "10000", "up")
    ip("-n", router.name, "route", "add", "default", "dev", _TUN, "table", _TABLE)


def _make_lan(router: Namespace, name: str, group: list[Namespace]) -> None:
    bridge, gateway = f"br-{name}", _address(name, 1)
    ip("-n", router.name, "link", "add", bridge, "type", "bridge")
    ip("-n", router.name, "addr", "add", f"{gateway}/24", "dev", bridge)
    ip("-n", router.name, "link", "set", bridge, "up")
    ip("-n", router.name, "rule", "add", "iif", bridge, "lookup", _TABLE)
    for host in group:
        ip("-n", router.name, "link", "add", _cable(host), "type", "veth", "peer", "name", "eth0", "netns", host.name)
        ip("-n", router.name, "link", "set", _cable(host), "master", bridge, "up")
        ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.name, "link", "set", "eth0", "up")
        ip("-n", host.name, "route", "add", "default", "via", gateway)


def _address(network: str, number: int) -> str:
    return str(ip_network(NETWORKS[network])[number])


def _cable(host: Namespace) -> str:
    return "v" + "-".join(host.address.split(".")[2:])
