"""The addresses that a node which listens on all interfaces advertises."""

from __future__ import annotations

from speil.interface_addresses import interface_addresses
from speil.multiformats.multiaddr import Multiaddr
from speil.setting import ListenAddress


def announced_addresses(listen: ListenAddress, bound: list[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses to advertise: those that are bound, or those of all interfaces where all are bound."""
    if listen.host not in ("", "0.0.0.0", "::"):
        return tuple(bound)
    port = int(bound[0].components[1][1])
    families = {address.components[0][0] for address in bound}
    found = (Multiaddr.of_tcp(host, port) for host in interface_addresses())
    return tuple(address for address in found if address.components[0][0] in families)
