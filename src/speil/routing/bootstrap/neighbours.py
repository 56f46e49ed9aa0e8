"""Nodes of the region found by its networks: what is left where the Lease can't be read or names another region's.

Only networks that the operator named as the region's (`--region-networks`) are searched, at the router's own port, the
addresses next to this node's first: nodes of one region are mostly numbered in a row. A network without one of this
node's addresses in it is left alone, and a large one is searched around this node only.
"""

from __future__ import annotations

from ipaddress import ip_address

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.region.policy import Network

AT_ONCE_MAX = 32  # dials of one round of the bootstrap, which comes at most every ten seconds when nobody is found
HOMES_MAX = 4  # of this node's own addresses
AROUND_MAX = 512  # addresses on either side of this node's: a /23 is searched wholly, a larger network in part


class Neighbours:
    """`next` gives other addresses each time, and begins anew at the end."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._distance = 0

    def are_elsewhere(self, found: list[Multiaddr]) -> bool:
        """Whether the region's networks were told, and all of these addresses, of which there are some, lie outside."""
        return bool(self._networks and found) and not any(map(self._network_of, found))

    def next(self, local: PeerInfo) -> list[Multiaddr]:
        """Addresses to try, at most AT_ONCE_MAX; empty where the region's networks were not told."""
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
        # the first and the last are the network itself and its broadcast address
        if int(network.network_address) < number < int(network.broadcast_address):
            found.append(Multiaddr.of_tcp(str(type(ip)(number)), port))
    return found
