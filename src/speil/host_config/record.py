"""What a run wrote, kept beside it: the next run tells by it what is ours, and what the operator did since."""

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
    """A hosts.toml of ours: hashes of it and of what it says beside our targets; `merged` with the operator's lines."""

    digest: str
    rest_digest: str
    merged: bool

    @classmethod
    def of(cls, data: bytes, targets: tuple[str, ...], *, merged: bool) -> Written:
        """Of a file as it is written."""
        return cls(digest(data), rest_digest(data.decode(), targets), merged)


@dataclass(frozen=True, slots=True)
class Record:
    """`made` are directories and links (path to target) of ours, `kept` is what else was there after the run."""

    targets: tuple[str, ...]
    written: dict[str, Written]
    made: dict[str, str]
    kept: frozenset[str]

    def encode(self) -> bytes:
        """As it is kept."""
        value = {
            "about": "by this file speil configuration and cleanup tell the files of speil from yours",
            "version": VERSION,
            "targets": list(self.targets),
            "written": {path: [one.digest, one.rest_digest, one.merged] for path, one in sorted(self.written.items())},
            "made": dict(sorted(self.made.items())),
            "kept": sorted(self.kept),
        }
        return json.dumps(value, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record | None:
        """None for what is no record: someone else's file, or one that was damaged."""
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
    """Of a file's content."""
    return hashlib.sha256(data).hexdigest()


def rest_digest(text: str, targets: tuple[str, ...]) -> str:
    """Of what a text says beside the targets; spaces and comments don't count."""
    try:
        document = parse(without_targets(text, targets))
    except HostsTomlError:
        return ""
    if not document.get("host", True):
        del document["host"]
    return digest(json.dumps(document, sort_keys=True, default=str).encode())
