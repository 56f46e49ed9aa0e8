"""The newest node token that was seen, kept in the data directory: an old one does not become good by a restart.

`node-token.json`: no token and no secret, two times and the node's name. Without a data directory, or where the file
can't be written, it is remembered until the process ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from speil.local_file import parse_json, read_file
from speil.observe.logs import get_log
from speil.region.node_token import Newest, NodeTokens

FILE_NAME = "node-token.json"
_BYTES_MAX = 4096  # a node's name and two numbers have under 400

log = get_log("border")


class NodeTokenFile:
    """Checks node tokens; `node` is this node's name, "" where it is not known."""

    def __init__(self, node: str, data_dir: Path | None) -> None:
        self.node = node
        self._path = data_dir / FILE_NAME if data_dir else None
        self._tokens = NodeTokens(node, self._load())

    def check(self, keys: Iterable[bytes], token: str) -> str | None:
        """Why a token does not count; None where it does."""
        newest = self._tokens.newest
        why = self._tokens.check(keys, token, time.time())
        if self._tokens.newest != newest:
            self._save(self._tokens.newest)
        return why

    def _load(self) -> Newest:
        if self._path is None:
            return Newest()
        try:
            told = parse_json(read_file(self._path, _BYTES_MAX).data)
            return Newest(int(told["issued"]), float(told["seen"])) if told["node"] == self.node else Newest()
        except FileNotFoundError:
            return Newest()
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            log.warning("the newest node token's time can't be read: starting without", path=self._path, error=error)
            return Newest()

    def _save(self, newest: Newest) -> None:
        if self._path is None:
            return
        temporary = self._path.with_name(f".{FILE_NAME}.{os.getpid()}")
        text = json.dumps({"node": self.node, "issued": newest.issued, "seen": newest.seen})
        try:
            temporary.write_text(text)
            temporary.rename(self._path)
        except OSError as error:
            log.warning(
                "the newest node token's time can't be kept: after a restart older tokens are good for an hour",
                path=self._path,
                error=error,
            )
