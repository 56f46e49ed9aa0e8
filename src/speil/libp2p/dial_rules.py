"""Which addresses this node dials, and how many new ones a minute.

With an address that a peer names, a stranger would choose where this node connects to. So such an address is dialled
only on the ports where nodes of the mesh listen, never where no other node can be, and the number of new ones a minute
is limited. Addresses that the operator or the bootstrap names are dialled as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache

from speil.libp2p.error import OwnLimitError, RefusedError
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.transport import ConnectionGate
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.network import IPAddress, ip_of
from speil.token_bucket import Bucket

# An honest mesh stays far below: a dial that reaches its peer is not counted.
NEW_ADDRESSES_PER_MINUTE_MAX = 60
HOSTS_KEPT_MAX = 1024  # hosts whose parsed form is kept: each answer of the DHT names those of the same nodes
REACHED_MAX = 4096  # addresses that were reached, and are not new therefore
PORTS_MAX = 32  # of the mesh; one is usual, more come with --router-dial-ports and the bootstrap's addresses
# cloud metadata services that are not on a link-local address
_METADATA = frozenset(("fd00:ec2::254", "100.100.100.200", "168.63.129.16"))


class DialRules:
    """The rules of one host. Implements `dialer.DialGuard`."""

    def __init__(
        self,
        gate: ConnectionGate,
        series: Libp2pSeries,
        neighbourhood: Neighbourhood,
        now: Callable[[], float],
        *,
        ports: Iterable[int] = (),
        never: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        """`ports`: of the mesh, beside this node's own. `never`: (host, port) that are no node, as the API server."""
        self._gate, self._series, self._neighbourhood, self._now = gate, series, neighbourhood, now
        self._ports = set(ports)
        self._never = {(ip_of(host) or host, port) for host, port in never}
        self._reached: OrderedDict[Multiaddr, None] = OrderedDict()
        self._new: Bucket | None = None

    def add_port(self, port: int) -> None:
        """Dial `port` too: nodes of the mesh listen there."""
        if len(self._ports) < PORTS_MAX:
            self._ports.add(port)

    def objection(self, address: Multiaddr, *, any_port: bool = False) -> str | None:
        """Why an address that a peer named is not dialled (a metric label); None where it may be.

        `any_port`: check the host alone.
        """
        if (tcp := address.tcp) is None:
            return "not_tcp"
        host, port = tcp
        ip, unfit = _judged(host)
        if ip is None or unfit:
            return unfit
        if (ip, port) in self._never:
            return "api_server"
        if ip.is_loopback:  # nodes of one machine have a port each
            return None if self._neighbourhood.has_loopback else "loopback"
        return None if any_port or port in self._ports else "port"

    def usable(self, addresses: Iterable[Multiaddr], *, any_port: bool = False) -> tuple[Multiaddr, ...]:
        """The addresses of a peer that may be dialled. The others are counted as refused."""
        found = []
        for address in addresses:
            if reason := self.objection(address, any_port=any_port):
                self._series.dials_refused.labels(reason).inc()
            else:
                found.append(address)
        return tuple(found)

    def begin(self, address: Multiaddr, *, named: bool) -> None:
        """See DialGuard."""
        if layer := self._gate.intercept_dial(address):
            self._series.rejected(layer)
            raise RefusedError(layer)
        if named:
            if (tcp := address.tcp) and not ((ip := ip_of(tcp[0])) and ip.is_loopback):
                self.add_port(tcp[1])
            return
        reason = self.objection(address)
        if reason:
            self._series.dials_refused.labels(reason).inc()
            raise RefusedError(f"the rules for addresses that peers name ({reason})")
        if self._is_new(address) and not self._bucket().take(self._now()):
            self._series.dials_refused.labels("rate").inc()
            limit = NEW_ADDRESSES_PER_MINUTE_MAX
            raise OwnLimitError(f"{address} is not dialled: the limit is {limit} new addresses a minute")

    def end(self, address: Multiaddr, *, named: bool, reached: bool) -> None:
        """See DialGuard."""
        if not reached:
            return
        if not named and self._is_new(address):
            self._bucket().give_back()
        if named and (tcp := address.tcp):
            self._neighbourhood.add_member(tcp[0])
        self._reached[address.without_peer_id] = None
        self._reached.move_to_end(address.without_peer_id)
        if len(self._reached) > REACHED_MAX:
            self._reached.popitem(last=False)

    def has_reached(self, addresses: Iterable[Multiaddr]) -> bool:
        """Whether an earlier dial of one of them reached its peer."""
        return not all(map(self._is_new, addresses))

    def _is_new(self, address: Multiaddr) -> bool:
        return address.without_peer_id not in self._reached

    def _bucket(self) -> Bucket:
        if self._new is None:
            self._new = Bucket(NEW_ADDRESSES_PER_MINUTE_MAX, NEW_ADDRESSES_PER_MINUTE_MAX / 60, self._now())
        return self._new


@lru_cache(HOSTS_KEPT_MAX)
def _judged(host: str) -> tuple[IPAddress | None, str | None]:
    """The IP address, and why no node can be there."""
    if (ip := ip_of(host)) is None:
        return None, "name"  # a stranger could make this node resolve any name
    return ip, _unfit(ip)


def _unfit(ip: IPAddress) -> str | None:
    if ip.is_unspecified or (ip.version == 4 and ip.packed[0] == 0):
        return "unspecified"
    if ip.is_multicast:
        return "multicast"
    if ip.is_link_local or str(ip) in _METADATA:
        return "link_local"
    return "reserved" if ip.is_reserved and not ip.is_loopback else None  # Python counts ::1 among them
