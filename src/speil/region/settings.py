"""The settings of a region: which one this node is in, and what keeps other regions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from speil.region.identity import REGION_LABEL, ZONE_LABEL, RegionIdentity, identify
from speil.region.label import RegionError
from speil.region.policy import Network
from speil.region.token import is_node_name
from speil.setting import Kind, SettingError, boolean, each, setting, text


def _network(value: str) -> Network:
    try:
        return ip_network(value)
    except ValueError as error:
        raise SettingError(f"{value!r} is not a network: write it like 10.1.0.0/16 ({error})") from error


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """See the help of each setting."""

    region: str = setting(text, "", help="The node's region. Empty: what the two Lease names end in, else the label's.")
    zone: str = setting(text, "", help="The node's zone: peers in it are preferred. Empty: from --topology-zone.")
    topology_region: str = setting(
        text,
        "",
        help="The node's label topology.kubernetes.io/region: nodes with another one are kept out, unless --region is "
        "set. It is the region where nothing else names one.",
    )
    topology_zone: str = setting(text, "", help="The node's label topology.kubernetes.io/zone.")
    topology_from_node: bool = setting(
        boolean, False, help="Read the two labels from the node's object in the API (clusters before 1.35)."
    )
    leader_election_name: str = setting(
        text, "", help="The region's Lease. Empty: spegel-leader-election, with -<region> where there is one."
    )
    leader_election_namespace: str = setting(
        text, "", help="The Lease's namespace. Empty: spegel, with -<region> where there is one."
    )
    region_secret_file: str = setting(
        Kind("file", str), "", help="The region's secret: the first line signs, every line verifies. Empty: open."
    )
    region_networks: tuple[Network, ...] = setting(
        each("networks", _network), (), help="Networks of the region's nodes; peers elsewhere are kept out. Empty: any."
    )
    node_name: str = setting(text, "", help="This node's name, in the API and in its token. Empty: the host's name.")

    @property
    def token_name(self) -> str:
        """The name that this node's token has to carry.

        "" where `--node-name` is not set: the host name of a container is not the node's name.
        """
        return self.node_name if is_node_name(self.node_name) else ""

    def identity(self, labels: Mapping[str, str] | None = None) -> RegionIdentity:
        """Region, zone and Lease; `labels` are the node's, None where they were not read. Raises SettingError."""
        labels = labels or {}
        try:
            return identify(
                region=self.region,
                zone=self.zone,
                lease_name=self.leader_election_name,
                lease_namespace=self.leader_election_namespace,
                region_label=self.topology_region or labels.get(REGION_LABEL, ""),
                zone_label=self.topology_zone or labels.get(ZONE_LABEL, ""),
            )
        except RegionError as error:
            raise SettingError(str(error)) from error
