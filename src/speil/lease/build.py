"""Makes a node's Lease from its settings."""

from __future__ import annotations

from pathlib import Path

from speil.election.ownership import Owner
from speil.election.settings import ElectionSettings
from speil.kube.api import KubeApi
from speil.kube.kubeconfig import access_of_node
from speil.lease.base import LeaseLock
from speil.lease.file import FileLease
from speil.lease.kubernetes import KubernetesLease
from speil.region.identity import RegionIdentity
from speil.setting import SettingError
from speil.version import __version__


def build_lease(kind: str, settings: ElectionSettings, identity: RegionIdentity) -> LeaseLock:
    """The Lease for the bootstrap kind `kubernetes` or `file`. Sends no request yet; close it when done.

    Raises SettingError where the settings name none.
    """
    if kind == "file":
        if not settings.lease_file:
            raise SettingError("--bootstrap-kind file needs --lease-file")
        return FileLease(Path(settings.lease_file))
    access = access_of_node(settings.kubeconfig_path, settings.kubeconfig_context)
    return KubernetesLease(KubeApi(access, f"speil/{__version__}"), identity.lease.name, identity.lease.namespace)


def owner_of(kind: str, identity: RegionIdentity) -> Owner:
    """For which region and label this node writes the Lease. The name of a file names no region."""
    return Owner(identity.region, identity.label, kind == "kubernetes" and identity.lease_is_ours)
