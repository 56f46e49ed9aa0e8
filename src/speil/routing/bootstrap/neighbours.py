"""Addresses to try when the Lease can't be read or belongs to another region: those near this node's own.

Only the region's networks (`--region-networks`) are searched, at the port of this node's router. The addresses next to
this node's come first: nodes of one region mostly have consecutive addresses. A network that holds none of this node's
addresses is not searched, and a large one is searched only near this node.
"""

from __future__ import annotations

from ipaddress import ip_address

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.region.policy import Network

AT_ONCE_MAX = 32  # dials of one bootstrap round; rounds without a result are ten seconds apart
HOMES_MAX = 4  # of this node's own addresses that are searched around
AROUND_MAX = 512  # addresses on either side of this node's: all of a /23, part of a larger network


class Neighbours:
    """`next` gives different addresses each time, and starts over at the end."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._distance = 0

    def are_elsewhere(self, found: list[Multiaddr]) -> bool:
        """Whether all of these addresses are outside the region's networks; False without addresses or networks."""
        return bool(self._networks and found) and not any(map(self._network_of, found))

    def next(self, local: PeerInfo) -> list[Multiaddr]:
        """Addresses to try, at most AT_ONCE_MAX; empty where the region's networks are not set."""
        found: list[Multiaddr] = []
        own = [(address, self._network_of(address)) for address in local.addresses]
        homes = [(address, network) for address, network in own if network is not None][:HOMES_MAX]
        for _ in range(AROUND_MAX):
            if not homes or len(found) + 2 * len(homes) > AT_ONCE_MAX:
                break
            self._distance = self._distance % AROUND_MAX + 1
            for address, network in homes:
                found += _around(address, network, self._distance)
        return found

    def _network_of(self, address: Multiaddr) -> Network | None:
        host, _ = address.tcp or ("", 0)
        try:
            ip = ip_address(host.partition("%")[0])
        except ValueError:
            return None
        return next((network for network in self._networks if ip in network), None)


def _around(address: Multiaddr, network: Network, distance: int) -> list[Multiaddr]:
    host, port = address.tcp or ("", 0)
    ip = ip_address(host.partition("%")[0])
    found = []
    for number in (int(ip) - distance, int(ip) + distance):
        # The first and the last are the network itself and its broadcast address.
        if int(network.network_address) < number < int(network.broadcast_address):
            found.append(Multiaddr.of_tcp(str(type(ip)(number)), port))
    return found
