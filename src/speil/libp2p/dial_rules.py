"""Which addresses this node dials, and how many new ones a minute.

An address that a peer told is hearsay: with it a stranger would choose whom this node connects to. So it is dialled
only on the ports where nodes of the mesh listen, never where no other node can be, and only so many new ones a minute.
What the operator or the bootstrap names is dialled as it stands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from speil.libp2p.error import OwnLimitError, RefusedError
from speil.libp2p.neighbourhood import IPAddress, Neighbourhood, ip_of
from speil.libp2p.rate import Bucket
from speil.libp2p.transport import ConnectionGate
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.metrics import Metrics

# an honest mesh does not come near: a dial that reaches its peer gives its place back
NEW_ADDRESSES_PER_MINUTE_MAX = 60
REACHED_MAX = 4096  # addresses remembered as reached: they are not new
PORTS_MAX = 32  # of the mesh; one is usual, more come with --router-dial-ports and the bootstrap's addresses
# cloud metadata services that are not on a link-local address
_METADATA = frozenset(("fd00:ec2::254", "100.100.100.200", "168.63.129.16"))


class DialRules:
    """See the module, and `dialer.DialGuard`."""

    def __init__(
        self,
        gate: ConnectionGate,
        metrics: Metrics,
        neighbourhood: Neighbourhood,
        now: Callable[[], float],
        *,
        ports: Iterable[int] = (),
        never: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        """`ports`: of the mesh, beside this node's own. `never`: (host, port) that are no node's (the API server)."""
        self._gate, self._metrics, self._neighbourhood, self._now = gate, metrics, neighbourhood, now
        self._ports = set(ports)
        self._never = {(ip_of(host) or host, port) for host, port in never}
        self._reached: OrderedDict[Multiaddr, None] = OrderedDict()
        self._new: Bucket | None = None

    def add_port(self, port: int) -> None:
        """Nodes of the mesh listen there."""
        if len(self._ports) < PORTS_MAX:
            self._ports.add(port)

    def objection(self, address: Multiaddr, *, any_port: bool = False) -> str | None:
        """Why an address that a peer told is not dialled; None where it may be. `any_port`: its host alone matters."""
        if (tcp := address.tcp) is None:
            return "not_tcp"
        host, port = tcp
        if (ip := ip_of(host)) is None:
            return "name"  # a lookup for each name that a stranger invents, of an address of its choice
        if layer := _unfit(ip, host):
            return layer
        if (ip, port) in self._never:
            return "api_server"
        if ip.is_loopback:  # nodes of one machine have a port each
            return None if self._neighbourhood.has_loopback else "loopback"
        return None if any_port or port in self._ports else "port"

    def usable(self, addresses: Iterable[Multiaddr], *, any_port: bool = False) -> tuple[Multiaddr, ...]:
        """Those of a peer's addresses that may be dialled; the others are counted as refused."""
        found = []
        for address in addresses:
            if reason := self.objection(address, any_port=any_port):
                self._metrics.dials_refused.labels(reason).inc()
            else:
                found.append(address)
        return tuple(found)

    def begin(self, address: Multiaddr, *, named: bool) -> None:
        """See DialGuard."""
        if layer := self._gate.intercept_dial(address):
            self._metrics.rejected_connections.labels(layer).inc()
            raise RefusedError(layer)
        if named:
            if (tcp := address.tcp) and not ((ip := ip_of(tcp[0])) and ip.is_loopback):
                self.add_port(tcp[1])
            return
        reason = self.objection(address)
        if reason:
            self._metrics.dials_refused.labels(reason).inc()
            raise RefusedError(f"the rules for addresses that peers told ({reason})")
        if self._is_new(address) and not self._bucket().take(self._now()):
            self._metrics.dials_refused.labels("rate").inc()
            raise OwnLimitError(f"{NEW_ADDRESSES_PER_MINUTE_MAX} new addresses a minute are dialled, not {address}")

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
        """Whether a dial of one of them has reached its peer before."""
        return not all(map(self._is_new, addresses))

    def _is_new(self, address: Multiaddr) -> bool:
        return address.without_peer_id not in self._reached

    def _bucket(self) -> Bucket:
        if self._new is None:
            self._new = Bucket(NEW_ADDRESSES_PER_MINUTE_MAX, NEW_ADDRESSES_PER_MINUTE_MAX / 60, self._now())
        return self._new


def _unfit(ip: IPAddress, host: str) -> str | None:
    """Why no node can be at an address."""
    if ip.is_unspecified or (ip.version == 4 and ip.packed[0] == 0):
        return "unspecified"
    if ip.is_multicast:
        return "multicast"
    if ip.is_link_local or str(ip) in _METADATA:
        return "link_local"
    return "reserved" if ip.is_reserved and not ip.is_loopback else None  # Python counts ::1 among them
