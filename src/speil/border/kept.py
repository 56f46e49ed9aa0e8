"""Small facts in the data directory that must survive a restart. Never a secret, never a token."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from speil.local_file import parse_json, read_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom

_BYTES_MAX = 4096  # a node's name and two numbers take under 400

log = get_log("border")


class KeptFact:
    """A JSON object in `data_dir`/`name`; without a directory nothing is stored. `what` is its name in the log."""

    def __init__(self, data_dir: Path | None, name: str, what: str) -> None:
        self._path = data_dir / name if data_dir else None
        self._what = what
        self._failure = Seldom(again_seconds=600)

    def load(self) -> dict[str, Any]:
        """The object; empty where there is none or it can't be read, which is logged."""
        if self._path is None:
            return {}
        try:
            found = parse_json(read_file(self._path, _BYTES_MAX).data)
            if not isinstance(found, dict):
                raise ValueError("it is not an object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("stored fact can't be read, starting without it", fact=self._what, path=self._path, error=error)
            return {}
        return found

    def save(self, fact: dict[str, Any]) -> None:
        """Replace the object. A failure is logged, not raised."""
        if self._path is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(fact))
            temporary.rename(self._path)
            self._failure.over()
        except OSError as error:
            if self._failure.due(str(error.errno)):
                log.warning("stored fact can't be written", fact=self._what, path=self._path, error=error.strerror)
