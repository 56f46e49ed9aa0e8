"""Which client addresses are on this node: containerd, the kubelet, other processes of the machine.

These are loopback, the addresses of this network namespace's interfaces, and the node's address from the chart
(NODE_IP). In a pod, connections from the node come from the bridge, which is the pod's gateway. A client that sends the
node token counts as on this node for some minutes, whatever its address.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from speil.interface_addresses import interface_addresses, kernel_table
from speil.multiformats.network import IPAddress, ip_of

READ_AGAIN_SECONDS = 60.0  # interfaces are added and removed
READ_FAILED_SECONDS = 1.0  # then reading is tried again; until then the last addresses stay
PROVED_SECONDS = 600.0  # if containerd pulls nothing for this long, it needs no reserved place
PROVED_MAX = 64  # addresses; a node has a handful
_LOOPBACK = frozenset({ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")})


class OwnAddresses:
    """`node_ip` is the node's address; it may differ from all interface addresses (in a pod)."""

    def __init__(
        self,
        node_ip: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        interfaces: Callable[[], Iterable[str]] = interface_addresses,
        gateways: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._node_ip = ip_of(node_ip)
        self._clock, self._interfaces, self._gateways = clock, interfaces, gateways or default_gateways
        self._read_at = float("-inf")
        self._here: frozenset[IPAddress] = frozenset()
        self._proved: OrderedDict[str, float] = OrderedDict()

    def cover(self, host: str, reached: str = "") -> bool:
        """Whether a client at `host` is on this node; `reached` is our address that it connected to."""
        if (ip := ip_of(host)) is None:
            return False
        if ip in _LOOPBACK or (reached and ip == ip_of(reached)):
            return True
        now = self._clock()
        if (until := self._proved.get(host)) is not None:
            if now < until:
                return True
            del self._proved[host]
        if now - self._read_at >= READ_AGAIN_SECONDS:
            try:
                self._read_at, self._here = now, self._read()
            except OSError:  # no file descriptor is left
                self._read_at = now - READ_AGAIN_SECONDS + READ_FAILED_SECONDS
        return ip in self._here

    def proved(self, host: str) -> None:
        """A client at `host` sent a valid node token."""
        self._proved[host] = self._clock() + PROVED_SECONDS
        self._proved.move_to_end(host)
        if len(self._proved) > PROVED_MAX:
            self._proved.popitem(last=False)

    def _read(self) -> frozenset[IPAddress]:
        here = {ip for host in self._interfaces() if (ip := ip_of(host))}
        if self._node_ip and self._node_ip not in here:
            # in a pod's network the gateway is the node; on the node's own network it is a router
            here |= {ip for host in self._gateways() if (ip := ip_of(host))} | {self._node_ip}
        return frozenset(here)


def default_gateways(proc: Path = Path("/proc/net")) -> list[str]:
    """The gateways of this network namespace's default routes; none where the kernel has no such table.

    Raises OSError where the process has no file descriptor left.
    """
    found = []
    for line in kernel_table(proc / "route")[1:]:
        fields = line.split()  # interface, destination, gateway (in the machine's byte order), …
        if len(fields) > 2 and fields[1] == "00000000" and fields[2] != "00000000":
            found.append(str(ipaddress.IPv4Address(int(fields[2], 16).to_bytes(4, sys.byteorder))))
    for line in kernel_table(proc / "ipv6_route"):
        fields = line.split()  # destination, its length, source, its length, gateway, …
        if len(fields) > 4 and fields[1] == "00" and int(fields[0], 16) == 0 and int(fields[4], 16):
            found.append(str(ipaddress.IPv6Address(int(fields[4], 16))))
    return found
