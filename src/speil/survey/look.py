"""Reads all regions once, from a cluster or from lease files and metrics URLs, as the settings say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from speil.kube.access import AccessSource
from speil.kube.api import KubeApi
from speil.kube.in_cluster import SERVICE_ACCOUNT, InClusterAccess
from speil.kube.kubeconfig import KubeconfigAccess, default_paths
from speil.overview.view import RegionView, group
from speil.region.label import is_label
from speil.setting import SettingError, each, integer, setting, text
from speil.survey.leases import leases_in_cluster, leases_in_files
from speil.survey.nodes import nodes_at, nodes_in_cluster
from speil.version import __version__


def _region(value: str) -> str:
    if not is_label(value):
        raise SettingError(f"{value!r} is not a region's name: write it like eu-west-1")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
        raise SettingError(f"{value!r} is not a URL: write it like http://10.0.0.7:9090")
    return value


regions = each("regions", _region)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How to reach the cluster."""

    kubeconfig_path: str = setting(text, "", help="The kubeconfig. Empty: $KUBECONFIG, else ~/.kube/config.")
    kubeconfig_context: str = setting(text, "", help="Which context of it. Empty: its current one.")

    def access(self) -> AccessSource:
        """The kubeconfig; in a pod without one, its ServiceAccount. Reads nothing yet."""
        paths = [Path(self.kubeconfig_path)] if self.kubeconfig_path else default_paths()
        if not self.kubeconfig_path and not any(path.exists() for path in paths) and SERVICE_ACCOUNT.exists():
            return InClusterAccess()
        return KubeconfigAccess(paths, self.kubeconfig_context)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[KubeApi]:
        """A client of the cluster's API, closed at the end of the block."""
        api = KubeApi(self.access(), f"speil/{__version__}")
        try:
            yield api
        finally:
            await api.close()


@dataclass(frozen=True, slots=True)
class SurveySettings:
    """What to read."""

    cluster: ClusterSettings
    regions: tuple[str, ...] = setting(regions, (), help="Regions to look at. Empty: all that are found.")
    metrics_port: int = setting(integer, 9090, help="The nodes' metrics port.")
    metrics_urls: tuple[str, ...] = setting(
        each("URLs", _url), (), help="Look at these nodes' metrics ports and not at a cluster's pods."
    )
    lease_files: tuple[str, ...] = setting(
        each("files", str), (), help="Look at these Leases and not at a cluster's (bootstrap kind file)."
    )


Look = Callable[[], Awaitable[list[RegionView]]]


@asynccontextmanager
async def looking(settings: SurveySettings) -> AsyncIterator[Look]:
    """A function that reads all regions as they are when it is called, over one client of the cluster's API.

    Nodes and Leases that can't be read carry an error. It raises SurveyError.
    """
    if settings.metrics_urls or settings.lease_files:
        yield lambda: _by_hand(settings)
        return
    async with settings.cluster.api() as api:
        yield lambda: _in_cluster(settings, api)


async def look(settings: SurveySettings) -> list[RegionView]:
    """All regions as they are now. Nodes and Leases that can't be read carry an error. Raises SurveyError."""
    async with looking(settings) as now:
        return await now()


async def _by_hand(settings: SurveySettings) -> list[RegionView]:
    leases = await leases_in_files([Path(path) for path in settings.lease_files]) if settings.lease_files else []
    nodes = await nodes_at(settings.metrics_urls) if settings.metrics_urls else []
    return group(leases, nodes, settings.regions)


async def _in_cluster(settings: SurveySettings, api: KubeApi) -> list[RegionView]:
    leases = await leases_in_cluster(api, settings.regions)
    return group(leases, await nodes_in_cluster(api, settings.metrics_port), settings.regions)
