"""The time of the newest node token, kept in the data directory: a restart does not make older tokens valid again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from speil.border.kept import KeptFact
from speil.region.node_token import Newest, NodeTokens

FILE_NAME = "node-token.json"  # two times and the node's name, no token
SECONDS_MAX = 10**12  # later times are not valid in a token


class NodeTokenFile:
    """Checks node tokens. `node` is this node's name, "" where it is not known.

    Without a data directory the newest time is remembered until the process ends.
    """

    def __init__(self, node: str, data_dir: Path | None) -> None:
        self._node = node
        self._kept = KeptFact(data_dir, FILE_NAME, "the time of the newest node token")
        self._tokens = NodeTokens(node, self._load())

    def check(self, keys: Iterable[bytes], token: str) -> str | None:
        """Why a token is not valid; None where it is."""
        newest = self._tokens.newest
        why = self._tokens.check(keys, token, time.time())
        if (found := self._tokens.newest) != newest:
            self._kept.save({"node": self._node, "issued": found.issued, "seen": found.seen})
        return why

    def _load(self) -> Newest:
        stored = self._kept.load()
        if stored.get("node") != self._node:
            return Newest()
        return Newest(int(_seconds(stored.get("issued"))), _seconds(stored.get("seen")))


def _seconds(value: object) -> float:
    return value if isinstance(value, int | float) and 0 <= value < SECONDS_MAX else 0.0
