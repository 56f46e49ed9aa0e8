"""The record of what a run wrote (`.speil.json`).

With it the next run knows which files speil wrote, and what the operator has changed since.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from speil.hosts_toml.document import HostsTomlError, parse, without_targets

RECORD = ".speil.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Written:
    """A hosts.toml that speil wrote.

    `digest`: the SHA-256 of the file. `rest_digest`: of its values without our targets. `merged`: it has lines of the
    operator.
    """

    digest: str
    rest_digest: str
    merged: bool

    @classmethod
    def of(cls, data: bytes, targets: tuple[str, ...], *, merged: bool) -> Written:
        """The entry for a file with this content."""
        return cls(digest(data), rest_digest(data.decode(), targets), merged)


@dataclass(frozen=True, slots=True)
class Record:
    """`targets`: our mirrors. `written`: our hosts.toml files. `made`: our directories ("") and links (their target).

    `kept`: the paths of all other entries after the run.
    """

    targets: tuple[str, ...]
    written: dict[str, Written]
    made: dict[str, str]
    kept: frozenset[str]

    def encode(self) -> bytes:
        """The content of the record file."""
        value = {
            "about": "speil configuration and cleanup use this file to know which files are theirs",
            "version": VERSION,
            "targets": list(self.targets),
            "written": {path: [one.digest, one.rest_digest, one.merged] for path, one in sorted(self.written.items())},
            "made": dict(sorted(self.made.items())),
            "kept": sorted(self.kept),
        }
        return json.dumps(value, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record | None:
        """Parse a record file; None if it is damaged or of another program or version."""
        try:
            value: Any = json.loads(data)
            if value["version"] != VERSION:
                return None
            written = {str(path): Written(str(a), str(b), bool(c)) for path, (a, b, c) in value["written"].items()}
            made = {str(path): str(target) for path, target in value["made"].items()}
            return cls(tuple(map(str, value["targets"])), written, made, frozenset(map(str, value["kept"])))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def digest(data: bytes) -> str:
    """The SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def rest_digest(text: str, targets: tuple[str, ...]) -> str:
    """The SHA-256 of the values of a hosts.toml without the targets; "" if it is invalid.

    Comments and white space make no difference.
    """
    try:
        document = parse(without_targets(text, targets))
    except HostsTomlError:
        return ""
    if not document.get("host", True):
        del document["host"]
    return digest(json.dumps(document, sort_keys=True, default=str).encode())
