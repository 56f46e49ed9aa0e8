"""The settings of region and election."""

from __future__ import annotations

from dataclasses import dataclass

from speil.election.config import DEFAULT_CONFIG, ElectionConfig, ElectionConfigError
from speil.region.identity import RegionIdentity, identify
from speil.region.label import RegionError
from speil.setting import SettingError, duration, setting, text


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """Where this node belongs, and how its region elects the node that newcomers ask."""

    region: str = setting(text, "", help="The node's region. Empty: what the two names below end in, else none.")
    zone: str = setting(text, "", help="The node's zone: peers in it are preferred. Empty: from --topology-zone.")
    topology_region: str = setting(
        text, "", help="The node's label topology.kubernetes.io/region; decides where nothing else tells the region."
    )
    topology_zone: str = setting(text, "", help="The node's label topology.kubernetes.io/zone.")
    leader_election_name: str = setting(
        text, "", help="The region's Lease. Empty: spegel-leader-election, with -<region> where there is one."
    )
    leader_election_namespace: str = setting(
        text, "", help="The Lease's namespace. Empty: spegel, with -<region> where there is one."
    )
    lease_file: str = setting(text, "", help="For bootstrap kind file: the file that is the Lease.")
    kubeconfig_path: str = setting(
        text, "", help="How to reach the Kubernetes API. Empty: as a pod does, with its ServiceAccount."
    )
    kubeconfig_context: str = setting(text, "", help="Which context of the kubeconfig. Empty: its current one.")
    lease_duration: float = setting(
        duration,
        float(DEFAULT_CONFIG.lease_duration_seconds),
        help="How long a leader that stopped renewing is still the leader; whole seconds.",
    )
    renew_deadline: float = setting(
        duration, DEFAULT_CONFIG.renew_deadline_seconds, help="How long a leader tries to renew before it gives up."
    )
    retry_period: float = setting(
        duration,
        DEFAULT_CONFIG.retry_period_seconds,
        help="How often a leader renews; others ask as often in a small region, less often in a large one.",
    )

    def identity(self) -> RegionIdentity:
        """Region, zone and Lease. Raises SettingError."""
        try:
            return identify(
                region=self.region,
                zone=self.zone,
                lease_name=self.leader_election_name,
                lease_namespace=self.leader_election_namespace,
                region_label=self.topology_region,
                zone_label=self.topology_zone,
            )
        except RegionError as error:
            raise SettingError(str(error)) from error

    def election(self) -> ElectionConfig:
        """The timings. Raises SettingError."""
        if self.lease_duration != int(self.lease_duration):
            raise SettingError("--lease-duration: a Lease counts whole seconds")
        try:
            return ElectionConfig(int(self.lease_duration), self.renew_deadline, self.retry_period)
        except ElectionConfigError as error:
            raise SettingError(str(error)) from error
