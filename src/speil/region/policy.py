"""Who belongs to the region: the rule that every door asks.

A node tells its region, its topology label and its zone as names among its libp2p protocols, so that they travel with
identify, need no round of their own and are passed over by whoever does not know them. Saying a region proves nothing
(the region secret does), but it stops every mistake: a wrong bootstrap address, a Lease that two regions share, a DHT
prefix set by hand.

The label stops the mistake that the region can't: names of a Lease that were copied into another region make its nodes
say the same region. Two nodes that both know their label and have different ones are of two regions. A node without a
label, or with a region that was set outright (`--region`), goes with anyone of its region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from speil.region.label import is_label, is_label_value

REGION_PROTOCOL, ZONE_PROTOCOL = "/speil/region/", "/speil/zone/"
LABEL_PROTOCOL = "/speil/topology-region/"
CONTRADICTION = "(several)"  # what a peer that names more than one region is in
Network = IPv4Network | IPv6Network


class Layer(StrEnum):
    """What kept a peer out; the label of `speil_cross_region_rejected_total`."""

    LEASE = "lease"  # the Lease is another region's
    NETWORK = "network"  # an address outside the region's networks
    SECRET = "secret"  # no handshake without the region's secret
    IDENTIFY = "identify"  # the peer says that it is in another region
    DHT_PROTOCOL = "dht_protocol"  # the peer routes in another mesh
    HTTP = "http"  # a request or an answer of another region's node
    TOKEN = "token"  # a peer's request without a valid token
    ANSWER = "answer"  # an answer without a valid proof
    NODE_TOKEN = "node_token"  # a client's request without a valid token


@dataclass(frozen=True, slots=True)
class Policy:
    """`region` "" is a mesh without regions. `unsaid` says whether peers that name no region count as ours.

    `label` is this node's topology label, "" where it takes no part (RegionIdentity.label).
    """

    region: str = ""
    unsaid: bool = True
    networks: tuple[Network, ...] = ()
    label: str = ""

    def admits(self, region: str) -> bool:
        """Whether a peer that says `region` ("": says nothing) is one of ours."""
        return region == self.region or (region == "" and self.unsaid)

    def shares(self, label: str) -> bool:
        """Whether a peer that tells this topology label ("": tells none) may be of our region."""
        return not (self.label and label) or label == self.label

    def covers(self, host: str) -> bool:
        """Whether an IP address is in the region's networks; anything is where none are given."""
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
    """The names that tell region, zone and topology label."""
    told = ((REGION_PROTOCOL, region), (ZONE_PROTOCOL, zone), (LABEL_PROTOCOL, label))
    return tuple(prefix + name for prefix, name in told if name)


def region_said(protocols: Iterable[str]) -> str:
    """The region that a peer tells; "" where it tells none, CONTRADICTION where it tells several."""
    return _said(REGION_PROTOCOL, protocols)


def label_said(protocols: Iterable[str]) -> str:
    """The topology label that a peer tells; "" where it tells none, CONTRADICTION where it tells several."""
    return _said(LABEL_PROTOCOL, protocols, is_label_value)


def zone_said(protocols: Iterable[str]) -> str:
    """The zone that a peer tells; "" where it tells none (or several)."""
    zone = _said(ZONE_PROTOCOL, protocols)
    return "" if zone == CONTRADICTION else zone


def _said(prefix: str, protocols: Iterable[str], is_valid: Callable[[str], bool] = is_label) -> str:
    names = {protocol.removeprefix(prefix) for protocol in protocols if protocol.startswith(prefix)}
    if not names:
        return ""
    return name if len(names) == 1 and is_valid(name := names.pop()) else CONTRADICTION
