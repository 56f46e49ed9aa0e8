"""Reads the labels of this node from its object in the API.

Since Kubernetes 1.35 a pod has its node's topology labels as its own, and the downward API passes them on. In older
clusters they are read here. That needs the right to `get` `nodes`, which the election does not need.

The labels are kept in the data directory. A node that restarts while the API is away must not go without its label,
which keeps it apart from nodes of another region.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from speil.kube.api import KubeApi
from speil.observe.logs import get_log

FILE_NAME = "topology.json"
_KEPT = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
_BYTES_MAX = 4096  # two labels and a node's name have under 600

log = get_log("region")


async def node_labels(api: KubeApi, name: str) -> dict[str, str]:
    """All labels of the node `name`. Raises KubeError."""
    answer = await api.request("GET", f"/api/v1/nodes/{name}")
    metadata = answer.document.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


class KeptLabels:
    """The topology labels of this node as they were last read, in `data_dir`. Without a directory nothing is kept."""

    def __init__(self, data_dir: Path | None) -> None:
        self._path = data_dir / FILE_NAME if data_dir else None

    def load(self, node: str) -> dict[str, str]:
        """The labels of `node`. Empty where none are kept, they are another node's, or the file can't be read."""
        if self._path is None or not self._path.is_file():
            return {}
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(_BYTES_MAX))
            labels = document["labels"] if document["node"] == node else {}
            return {key: labels[key] for key in _KEPT if isinstance(labels.get(key), str)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("kept node labels can't be read", path=self._path, error=error)
            return {}

    def save(self, node: str, labels: Mapping[str, str]) -> None:
        """Replace what is kept. A file that can't be written is logged."""
        if self._path is None:
            return
        temporary = self._path.with_name(f".{FILE_NAME}.{os.getpid()}")
        text = json.dumps({"node": node, "labels": {key: labels[key] for key in _KEPT if key in labels}})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            temporary.rename(self._path)
        except OSError as error:
            log.warning("node labels can't be kept for the next start", path=self._path, error=error)
