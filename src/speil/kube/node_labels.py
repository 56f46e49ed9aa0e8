"""The labels of this node, read from its object in the API.

Since Kubernetes 1.35 a pod has its node's topology labels as its own, and the downward API hands them over. In older
clusters this is the way to them; it needs `get` on `nodes`, which a node's own election does not.
"""

from __future__ import annotations

from speil.kube.api import KubeApi


async def node_labels(api: KubeApi, name: str) -> dict[str, str]:
    """All labels of the node `name`. Raises KubeError."""
    answer = await api.request("GET", f"/api/v1/nodes/{name}")
    metadata = answer.document.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
