"""`dns`: the name of a headless Service, whose records are the nodes of the mesh.

As in Spegel, the addresses are sorted and the first few of each family are used: all nodes dial the same ones, so the
mesh can't split. The dial shows their peer ids.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.routing.bootstrap.base import BootstrapError

PEERS_PER_FAMILY_MAX = 3  # Spegel's
RESOLVE_SECONDS_MAX = 10.0  # a cluster's DNS answers in milliseconds, or after its own 5 s retry


class DnsBootstrapper:
    """Looks up A and AAAA records of a domain. Peers listen on the same router port as this node."""

    kind = "dns"

    def __init__(self, domain: str, router_port: int) -> None:
        self._domain, self._port = domain, router_port

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper. A name that does not exist is an error, not an empty answer."""
        try:
            async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                entries = await asyncio.get_running_loop().getaddrinfo(
                    self._domain, self._port, type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError) as error:
            raise BootstrapError(f"DNS lookup of {self._domain} failed: {error}") from error
        except TimeoutError:
            raise BootstrapError(f"DNS lookup of {self._domain} took over {RESOLVE_SECONDS_MAX:.0f} s") from None
        own = {ipaddress.ip_address(host) for host in local.hosts if _is_ip(host)}
        addresses = sorted(
            {ipaddress.ip_address(entry[4][0]) for entry in entries}, key=lambda ip: (ip.version, ip.packed)
        )
        found: list[Multiaddr] = []
        for version in (4, 6):
            others = [ip for ip in addresses if ip.version == version and ip not in own]
            found += [Multiaddr.of_tcp(str(ip), self._port) for ip in others[:PEERS_PER_FAMILY_MAX]]
        return found

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """See Bootstrapper. The headless Service names this node."""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
