"""IP addresses and the networks that they are in, for limits that count by network."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Where prefixes are assigned, whoever has one address has its neighbours too.
PREFIX_BITS: Mapping[int, int] = {4: 24, 6: 64}

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@lru_cache(maxsize=4096)  # the same address is used for each of its connections and messages
def ip_of(host: str) -> IPAddress | None:
    """`host` as an IP address; None for a name. An IPv4 address embedded in IPv6 gives the IPv4 address."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return _embedded(found) or found
    return found


def network_around(ip: IPAddress, bits: Mapping[int, int]) -> Network:
    """The network of an address; `bits` has the prefix length by IP version."""
    return ipaddress.ip_network((ip, bits[ip.version]), strict=False)


def prefix_of(host: str, bits: Mapping[int, int] = PREFIX_BITS) -> str:
    """The network of an address as text; a name is returned as it is."""
    ip = ip_of(host)
    return host if ip is None else str(network_around(ip, bits))


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
