"""What a registry was asked, in its own access log."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.lab.layout import PLANS

_LINE = re.compile(
    r'(?m)^(\S+) - - \[[^]]*\] "(GET|HEAD) /v2/(\S+)/(blobs|manifests)/(\S+) HTTP/1\.[01]" (20[06]) (\d+)'
)
_NODES = {plan.address: plan for plan in PLANS.values()}


@dataclass(frozen=True, slots=True)
class Request:
    """A blob or manifest that was there and asked for by a node's containerd."""

    node: str
    region: str
    method: str
    kind: str  # blobs or manifests
    repository: str
    reference: str  # a digest, or a tag
    size_bytes: int


class RegistryLog:
    """From when it was made on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size

    def requests(self, *repositories: str) -> list[Request]:
        """Those of nodes, for some repositories or for all."""
        with self._path.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        found = []
        for address, method, repository, kind, reference, _, size in _LINE.findall(text):
            plan = _NODES.get(address)
            if plan is not None and (not repositories or repository in repositories):
                found.append(Request(plan.name, plan.region, method, kind, repository, reference, int(size)))
        return found

    def by_node(self, *repositories: str) -> Counter[str]:
        """How many requests each node made."""
        return Counter(request.node for request in self.requests(*repositories))

    def blobs(self, region: str, *repositories: str) -> Counter[str]:
        """How often each blob went to a region, by digest."""
        return Counter(
            request.reference
            for request in self.requests(*repositories)
            if request.region == region and request.kind == "blobs" and request.method == "GET"
        )
