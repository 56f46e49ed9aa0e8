"""Hosts on several bridges, joined by one router: what goes from one network to another passes a process of ours.

The bridges are in the router's namespace, and it routes whatever comes in on them into a TUN device. There is no
other way between two networks than the process that reads it (`router`): it can record packets, hold and lose them.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.system.lab.capture import Capture, Packet
from tests.system.lab.namespaces import Namespace, inside, ip, unique_prefix
from tests.system.lab.processes import LabProcess

CONTROL_SECONDS_MAX = 10.0
_TUN, _TABLE = "tun0", "100"
_ETH_P_ALL, _SO_RCVBUFFORCE = 3, 33
_TAP_BYTES = 32 << 20  # frames wait here until they are looked at


@dataclass(frozen=True, slots=True)
class Rule:
    """What the router does to packets between networks; an empty address and port 0 are all of them."""

    source: str = ""
    target: str = ""
    port: int = 0  # at either end
    delay_seconds: float = 0.0
    loss: float = 0.0  # the share of packets that is dropped


@dataclass(frozen=True, slots=True)
class Networks:
    """The hosts by network, the router, and what it saw."""

    router: Namespace
    hosts: dict[str, list[Namespace]]
    subnets: Mapping[str, str]
    capture: Capture
    control: Path

    def network_of(self, address: str) -> str:
        """The network that an address is in; "" for others."""
        return next((name for name, one in self.subnets.items() if ip_address(address) in ip_network(one)), "")

    def between(self, one: str, other: str, mark: int) -> list[Packet]:
        """Packets since `mark` that went from one of two networks to the other."""
        return [
            packet
            for packet in self.capture.since(mark)
            if {self.network_of(packet.source), self.network_of(packet.target)} == {one, other}
        ]

    def rule(self, *rules: Rule) -> None:
        """From now on the router follows these and no others; it has taken them when this returns."""
        own = self.control.with_suffix(".answers")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
            control.settimeout(CONTROL_SECONDS_MAX)
            control.bind(str(own))
            try:
                control.sendto(json.dumps([asdict(rule) for rule in rules]).encode(), str(self.control))
                assert control.recv(16) == b"taken"
            finally:
                own.unlink()

    def tap(self, host: Namespace) -> socket.socket:
        """A socket that reads every frame on a host's cable, as somebody in its network can who listens there."""
        with inside(self.router):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BYTES)
        tap.bind((_cable(host), 0))
        tap.setblocking(False)
        return tap


@contextmanager
def networks(
    folder: Path,
    subnets: Mapping[str, str],
    hosts: Mapping[str, Sequence[int]],
    *,
    held: Sequence[str] = (),
    delay_seconds: float = 0.0,
    captured: bool = True,
) -> Iterator[Networks]:
    """Networks with `hosts` by their last number, and the router at work; removed at the end.

    Packets from one to another network of those `held` take `delay_seconds` longer, whatever the rules say.
    """
    prefix = unique_prefix()
    router = Namespace(f"{prefix}-router", "")
    spaces = {
        name: [Namespace(f"{prefix}-{name}-{number}", _address(subnets[name], number)) for number in numbers]
        for name, numbers in hosts.items()
    }
    capture, control = folder / "router.pcap" if captured else Path("/dev/null"), folder / "router.control"
    argv = [sys.executable, str(Path(__file__).with_name("router.py")), _TUN, str(capture), str(control)]
    process = LabProcess(router, [*argv, str(delay_seconds), *(subnets[one] for one in held)], folder / "router.log")
    made: list[Namespace] = []
    try:
        for one in (router, *(host for group in spaces.values() for host in group)):
            ip("netns", "add", one.name)
            made.append(one)
            ip("-n", one.name, "link", "set", "lo", "up")
        _switch_routing_on(router)
        for name, group in spaces.items():
            _make_lan(router, name, subnets[name], group)
        process.start()
        yield Networks(router, spaces, subnets, Capture(capture), control)
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


def _make_lan(router: Namespace, name: str, subnet: str, group: list[Namespace]) -> None:
    bridge, gateway = f"br-{name}", _address(subnet, 1)
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


def _address(subnet: str, number: int) -> str:
    return str(ip_network(subnet)[number])


def _cable(host: Namespace) -> str:
    return "v" + "-".join(host.address.split(".")[2:])
