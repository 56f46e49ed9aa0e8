"""The rule who belongs to the region. libp2p, HTTP and the election apply it.

A node lists its region, topology label and zone among its libp2p protocols. So identify carries them without a round
trip of its own, and peers that do not know them ignore them. A claimed region proves nothing (the region secret does),
but it stops every mistake: a wrong bootstrap address, a Lease that two regions share, a DHT prefix set by hand.

The label stops the one mistake that the region can't: when the names of a Lease are copied into another region, its
nodes claim the same region. Two nodes that know their labels and have different ones are of two regions. A node without
a label, or whose region was set with `--region`, accepts every node that claims its region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from speil.region.label import is_label, is_label_value

REGION_PROTOCOL, ZONE_PROTOCOL = "/speil/region/", "/speil/zone/"
LABEL_PROTOCOL = "/speil/topology-region/"
CONTRADICTION = "(several)"  # the region of a peer that claims more than one
Network = IPv4Network | IPv6Network


class Layer(StrEnum):
    """What kept a peer out: the label `layer` of `speil_cross_region_rejected_total`."""

    LEASE = "lease"  # the Lease is another region's
    NETWORK = "network"  # an address outside the region's networks
    SECRET = "secret"  # no handshake without the region's secret
    IDENTIFY = "identify"  # the peer claims another region
    DHT_PROTOCOL = "dht_protocol"  # the peer routes in another mesh
    HTTP = "http"  # a request or an answer of another region's node
    TOKEN = "token"  # a peer's request without a valid token
    ANSWER = "answer"  # an answer without a valid proof
    NODE_TOKEN = "node_token"  # a client's request without a valid token


@dataclass(frozen=True, slots=True)
class Policy:
    """`region` "" is a mesh without regions. `unsaid`: peers that claim no region belong to it too.

    `label` is this node's topology label, "" where it does not count (RegionIdentity.label). `networks` empty: any.
    """

    region: str = ""
    unsaid: bool = True
    networks: tuple[Network, ...] = ()
    label: str = ""

    def admits(self, region: str) -> bool:
        """Whether a peer that claims `region` ("": none) belongs to this region."""
        return region == self.region or (region == "" and self.unsaid)

    def shares(self, label: str) -> bool:
        """Whether a peer that claims this topology label ("": none) may belong to this region."""
        return not (self.label and label) or label == self.label

    def covers(self, host: str) -> bool:
        """Whether the IP address `host` is in the region's networks; always where none are set."""
        if not self.networks:
            return True
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


def protocols_of(region: str, zone: str, label: str = "") -> tuple[str, ...]:
    """The protocol ids that claim region, zone and topology label; none for those that are ""."""
    claims = ((REGION_PROTOCOL, region), (ZONE_PROTOCOL, zone), (LABEL_PROTOCOL, label))
    return tuple(prefix + name for prefix, name in claims if name)


def region_said(protocols: Iterable[str]) -> str:
    """The region that a peer claims; "" where it claims none, CONTRADICTION where it claims several."""
    return _said(REGION_PROTOCOL, protocols)


def label_said(protocols: Iterable[str]) -> str:
    """The topology label that a peer claims; "" where it claims none, CONTRADICTION where it claims several."""
    return _said(LABEL_PROTOCOL, protocols, is_label_value)


def zone_said(protocols: Iterable[str]) -> str:
    """The zone that a peer claims; "" where it claims none or several."""
    zone = _said(ZONE_PROTOCOL, protocols)
    return "" if zone == CONTRADICTION else zone


def _said(prefix: str, protocols: Iterable[str], is_valid: Callable[[str], bool] = is_label) -> str:
    names = {protocol.removeprefix(prefix) for protocol in protocols if protocol.startswith(prefix)}
    if not names:
        return ""
    return name if len(names) == 1 and is_valid(name := names.pop()) else CONTRADICTION
