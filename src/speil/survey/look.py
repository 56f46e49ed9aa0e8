"""Reads all regions once, from a cluster or from lease files and metrics URLs, as the settings say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from speil.kube.access import AccessSource
from speil.kube.api import REQUEST_SECONDS_MAX, KubeApi
from speil.kube.in_cluster import SERVICE_ACCOUNT, InClusterAccess
from speil.kube.kubeconfig import KubeconfigAccess, default_paths
from speil.overview.view import LeaseView, NodeView, RegionView, group
from speil.progress import Progress
from speil.region.label import is_label
from speil.setting import Kind, SettingError, each, integer, setting, text
from speil.survey.error import SurveyError
from speil.survey.leases import NO_LEASE, leases_in_cluster, leases_in_files
from speil.survey.nodes import ASKED_AT_ONCE_MAX, nodes_at, nodes_in_cluster
from speil.survey.pods import near
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
file_path = Kind("file", str)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How to reach the cluster."""

    kubeconfig_path: str = setting(
        file_path, "", also=("--kubeconfig",), help="The kubeconfig. Empty: $KUBECONFIG, else ~/.kube/config."
    )
    kubeconfig_context: str = setting(
        text, "", also=("--context",), help="Which context of it. Empty: its current one."
    )

    def paths(self) -> list[Path]:
        """The kubeconfigs that count."""
        return [Path(self.kubeconfig_path)] if self.kubeconfig_path else default_paths()

    def access(self) -> AccessSource:
        """The kubeconfig; in a pod without one, its ServiceAccount. Reads nothing yet."""
        paths = self.paths()
        if not self.kubeconfig_path and not any(path.exists() for path in paths) and SERVICE_ACCOUNT.exists():
            return InClusterAccess()
        return KubeconfigAccess(paths, self.kubeconfig_context)

    @asynccontextmanager
    async def api(self, *, request_seconds_max: float = REQUEST_SECONDS_MAX) -> AsyncIterator[KubeApi]:
        """A client of the cluster's API, closed at the end of the block."""
        api = KubeApi(
            self.access(),
            f"speil/{__version__}",
            connections_max=ASKED_AT_ONCE_MAX,
            request_seconds_max=request_seconds_max,
        )
        try:
            yield api
        finally:
            await api.close()


@dataclass(frozen=True, slots=True)
class SurveySettings:
    """What to read."""

    cluster: ClusterSettings
    regions: tuple[str, ...] = setting(
        regions, (), also=("--region",), help="Regions to look at. Empty: all that are found."
    )
    namespace: str = setting(text, "", also=("-n",), help="Where speil's pods are. Empty: in any namespace.")
    metrics_port: int = setting(integer, 9090, help="The nodes' metrics port.")
    metrics_urls: tuple[str, ...] = setting(
        each("URLs", _url), (), help="Look at these nodes' metrics ports and not at a cluster's pods."
    )
    lease_files: tuple[str, ...] = setting(
        each("files", str), (), help="Look at these Leases and not at a cluster's (bootstrap kind file)."
    )


Look = Callable[[], Awaitable[list[RegionView]]]


@asynccontextmanager
async def looking(
    settings: SurveySettings, progress: Progress | None = None, *, must_exist: bool = False
) -> AsyncIterator[Look]:
    """A function that reads all regions as they are when it is called, over one client of the cluster's API.

    Nodes and Leases that can't be read carry an error. It raises SurveyError; with `must_exist` also for a region that
    was asked for and has neither a Lease nor a node. Otherwise such a region has an empty view.
    """
    if settings.metrics_urls or settings.lease_files:
        yield lambda: _by_hand(settings, progress, must_exist=must_exist)
        return
    async with settings.cluster.api() as api:
        yield lambda: _in_cluster(settings, api, progress, must_exist=must_exist)


async def look(
    settings: SurveySettings, progress: Progress | None = None, *, must_exist: bool = False
) -> list[RegionView]:
    """All regions as they are now: see `looking`. Raises SurveyError."""
    async with looking(settings, progress, must_exist=must_exist) as now:
        return await now()


async def _by_hand(settings: SurveySettings, progress: Progress | None, *, must_exist: bool) -> list[RegionView]:
    leases = await leases_in_files([Path(path) for path in settings.lease_files]) if settings.lease_files else []
    nodes = await nodes_at(settings.metrics_urls, progress) if settings.metrics_urls else []
    return _grouped(settings, leases, nodes, must_exist=must_exist)


async def _in_cluster(
    settings: SurveySettings, api: KubeApi, progress: Progress | None, *, must_exist: bool
) -> list[RegionView]:
    leases = await leases_in_cluster(api, settings.regions)
    nodes = await nodes_in_cluster(api, settings.metrics_port, settings.namespace, progress)
    return _grouped(settings, leases, nodes, must_exist=must_exist)


def _grouped(
    settings: SurveySettings, leases: Sequence[LeaseView], nodes: Sequence[NodeView], *, must_exist: bool
) -> list[RegionView]:
    if must_exist:
        _check_names(settings.regions, leases, nodes)
    return group(leases, nodes, settings.regions)


def _check_names(wanted: Sequence[str], leases: Sequence[LeaseView], nodes: Sequence[NodeView]) -> None:
    """Raises SurveyError for a region that has neither a Lease nor a node."""
    if any(node.error for node in nodes):
        return  # it may be that node's
    known = {lease.region for lease in leases if lease.lease} | {node.region for node in nodes}
    # a Lease that can't be read is no proof that there is none
    asked = {lease.asked_for for lease in leases if lease.error and lease.error != NO_LEASE}
    for region in wanted:
        if region not in known | asked:
            raise SurveyError(f"there is no region {region!r}{near(region, known)}")
