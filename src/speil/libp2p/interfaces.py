"""The addresses of this machine's interfaces, from the kernel: a node that listens on all of them advertises these."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from speil.multiformats.multiaddr import Multiaddr
from speil.setting import ListenAddress

_SIOCGIFADDR = 0x8915


def interface_addresses() -> list[str]:
    """IPv4 and global IPv6 addresses that others can reach; the loopback address where there is no other."""
    found = [address for address in _ipv4() + _ipv6() if not ipaddress.ip_address(address).is_loopback]
    return found or ["127.0.0.1"]


def _ipv4() -> list[str]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without an IPv4 address
            found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6() -> list[str]:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []  # a kernel without IPv6
    addresses = [ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in lines]
    return [str(address) for address in addresses if not address.is_link_local]


def announced_addresses(listen: ListenAddress, bound: list[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses to advertise: those that are bound, or those of all interfaces where all are bound."""
    if listen.host not in ("", "0.0.0.0", "::"):
        return tuple(bound)
    port = int(bound[0].components[1][1])
    families = {address.components[0][0] for address in bound}
    found = (Multiaddr.of_tcp(host, port) for host in interface_addresses())
    return tuple(address for address in found if address.components[0][0] in families)
