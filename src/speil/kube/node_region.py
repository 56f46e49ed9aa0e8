"""Which region this node is in, from its settings and, with `--topology-from-node`, from its labels in the API."""

from __future__ import annotations

import socket
from pathlib import Path

from speil.kube.access import AccessSource
from speil.kube.api import KubeApi
from speil.kube.error import KubeError
from speil.kube.node_labels import KeptLabels, node_labels
from speil.observe.logs import get_log
from speil.region.identity import RegionIdentity
from speil.region.settings import RegionSettings
from speil.setting import SettingError
from speil.version import __version__

log = get_log("region")


async def identify_node(settings: RegionSettings, access: AccessSource, data_dir: Path | None) -> RegionIdentity:
    """The node's region. Where its labels can't be read, the labels that `data_dir` keeps count.

    Raises SettingError where the settings contradict each other, and where only labels that are unknown name a region.
    """
    if not settings.topology_from_node:
        return settings.identity()
    name = settings.node_name or socket.gethostname()
    kept = KeptLabels(data_dir)
    api = KubeApi(access, f"speil/{__version__}")
    try:
        labels = await node_labels(api, name)
    except KubeError as error:
        return _without_labels(settings, name, kept.load(name), error)
    finally:
        await api.close()
    kept.save(name, labels)
    return settings.identity(labels)


def _without_labels(settings: RegionSettings, name: str, kept: dict[str, str], error: KubeError) -> RegionIdentity:
    if kept:
        log.warning("node labels can't be read, using those of the last start", node=name, error=error)
        return settings.identity(kept)
    region = settings.identity()
    if not region.region:
        # its region is unknown now: a node that joins a mesh without regions would cross a border
        raise SettingError(f"--topology-from-node: the labels of node {name} can't be read: {error}") from error
    log.warning(
        "node labels can't be read",
        node=name,
        error=error,
        meanwhile="this node has no zone, and accepts every node that names its region, whatever its label",
    )
    return region
