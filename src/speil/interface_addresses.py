"""The addresses of this network namespace's interfaces, from the kernel."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})  # of this process, of the machine
_SIOCGIFADDR = 0x8915


def interface_addresses() -> list[str]:
    """IPv4 and global IPv6 addresses that others can reach; the loopback one only where there is nothing else.

    Raises OSError where the process has no file descriptor left.
    """
    found = [address for address in _ipv4() + _ipv6() if not ipaddress.ip_address(address).is_loopback]
    return found or ["127.0.0.1"]


def kernel_table(path: Path) -> list[str]:
    """The lines of a file below /proc/net; none where the kernel has no such file, as without IPv6.

    Raises OSError where the process has no file descriptor left.
    """
    try:
        return path.read_text().splitlines()
    except OSError as error:
        if error.errno in NO_DESCRIPTOR:
            raise
        return []


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
    lines = kernel_table(Path("/proc/net/if_inet6"))
    addresses = [ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in lines]
    return [str(address) for address in addresses if not address.is_link_local]
