"""Small facts in the data directory that must outlive a restart; never a secret, never a token."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from speil.local_file import parse_json, read_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom

_BYTES_MAX = 4096  # a node's name and two numbers have under 400

log = get_log("border")


class KeptFact:
    """A JSON object in `data_dir`/`name`; without a directory nothing is kept. `what` names it in the log."""

    def __init__(self, data_dir: Path | None, name: str, what: str) -> None:
        self._path = data_dir / name if data_dir else None
        self._what = what
        self._failure = Seldom(again_seconds=600)

    def load(self) -> dict[str, Any]:
        """What was kept; empty where nothing was, or can be read."""
        if self._path is None:
            return {}
        try:
            found = parse_json(read_file(self._path, _BYTES_MAX).data)
            if not isinstance(found, dict):
                raise ValueError("it is not an object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning(f"{self._what} can't be read: starting without", path=self._path, error=error)
            return {}
        return found

    def save(self, fact: dict[str, Any]) -> None:
        """Keep this in place of what was there; where it can't be written the log tells."""
        if self._path is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(fact))
            temporary.rename(self._path)
            self._failure.over()
        except OSError as error:
            if self._failure.due(str(error.errno)):
                log.warning(f"{self._what} can't be kept for the next start", path=self._path, error=error.strerror)
