"""What a registry was asked, in its own access log."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.cluster.lab.layout import PLANS

_BLOB = re.compile(r'(?m)^(\S+) - - \[[^]]*\] "GET /v2/(\S+)/blobs/(sha256:[0-9a-f]{64}) HTTP/1\.[01]" 20[06] ')
_NODES = {plan.address: name for name, plan in PLANS.items()}


class RegistryLog:
    """From when it was made on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size

    def blobs(self, repository: str = "") -> Counter[tuple[str, str]]:
        """Blobs that were sent, by node (or pod's address) and digest; of one repository or of all."""
        with self._path.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        return Counter(
            (_NODES.get(match[1], match[1]), match[3]) for match in _BLOB.finditer(text) if repository in ("", match[2])
        )

    def blobs_of_region(self, region: str, repository: str = "") -> Counter[str]:
        """Blobs that went to a region, by digest."""
        counted: Counter[str] = Counter()
        for (node, digest), count in self.blobs(repository).items():
            if node in PLANS and PLANS[node].region == region:
                counted[digest] += count
        return counted
