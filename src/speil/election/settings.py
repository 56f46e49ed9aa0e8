"""The settings of the election: how to reach the Lease, and the timings."""

from __future__ import annotations

from dataclasses import dataclass

from speil.election.config import DEFAULT_CONFIG, ElectionConfig, ElectionConfigError
from speil.setting import SettingError, duration, setting, text


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    """See the help of each setting."""

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

    def timings(self) -> ElectionConfig:
        """The timings, checked against each other. Raises SettingError."""
        if self.lease_duration != int(self.lease_duration):
            raise SettingError(f"--lease-duration: a Lease has whole seconds, {self.lease_duration:g}s is not")
        try:
            return ElectionConfig(int(self.lease_duration), self.renew_deadline, self.retry_period)
        except ElectionConfigError as error:
            raise SettingError(str(error)) from error
