"""Reads what a mirror needs of the containerd configuration: the hosts.toml directory, and whether layers are kept.

The effective configuration comes from CRI `Status` (containerd 1.x, and 2.x versions that expose it), otherwise from
the configuration file. A value that is in neither is None.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient

FILES_MAX = 64  # a containerd configuration is one file and a few imports
_CRI_TABLES = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri")


@dataclass(frozen=True, slots=True)
class ContainerdFacts:
    """`source`: where the configuration was read. `imports`: the imports in the configuration file."""

    version: str
    registry_config_path: str | None = None
    discard_unpacked_layers: bool | None = None
    source: str = "unknown"
    imports: tuple[str, ...] = ()

    @property
    def major(self) -> int:
        """The major version; 0 if it is not a number."""
        head = self.version.lstrip("v").partition(".")[0]
        return int(head) if head.isdigit() else 0


async def inspect(client: ContainerdClient, config_file: str) -> ContainerdFacts:
    """Read the facts from containerd, then from `config_file`. Raises StoreError if containerd does not answer."""
    version = await client.version()
    try:
        status = await client.runtime_status()
    except StoreError:
        status = {}
    found = _from_status(status)
    of_file = from_file(Path(config_file))
    if found.get("config_path") is not None:
        source = "containerd's CRI status"
    else:
        found, source = {**of_file, **{key: value for key, value in found.items() if value is not None}}, config_file
    return ContainerdFacts(
        version,
        found.get("config_path"),
        found.get("discard"),
        source if found else "unknown",
        tuple(of_file.get("imports", ())),
    )


def _from_status(info: dict[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(info["config"])
    except (KeyError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    registry = config.get("registry")
    nested = config.get("containerd")
    return {
        "config_path": registry.get("configPath") if isinstance(registry, dict) else None,
        "discard": (nested or {}).get("discardUnpackedLayers", config.get("discardUnpackedLayers")),
    }


def from_file(path: Path) -> dict[str, Any]:
    """The facts in a configuration file and its imports. Later imports override, as in containerd."""
    found: dict[str, Any] = {}
    pending, seen = [path], {path}
    while pending and len(seen) <= FILES_MAX:
        file = pending.pop(0)
        document = _document(file)
        if document is None:
            continue
        imports = [one for one in document.get("imports", []) if isinstance(one, str)]
        found |= {"imports": [*found.get("imports", []), *imports], **_settings(document)}
        for one in imports:
            more = [imported for imported in _imported(file, one) if imported not in seen]
            seen.update(more)
            pending.extend(more)
    return found


def _imported(file: Path, pattern: str) -> list[Path]:
    """The files that an import names. It may be a pattern; it may be relative to the directory of `file`."""
    absolute = file.parent.absolute() / pattern
    return sorted(Path(absolute.anchor).glob(str(absolute.relative_to(absolute.anchor))))


def _document(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text()
        import tomllib  # seldom needed: CRI states the configuration, and a pod has no such file

        return tomllib.loads(text)
    except (OSError, ValueError):
        return None


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    plugins = _table(document, "plugins")
    for name in _CRI_TABLES:
        section = _table(plugins, name)
        if (config_path := _table(section, "registry").get("config_path")) is not None:
            found["config_path"] = config_path
        discard = section.get("discard_unpacked_layers", _table(section, "containerd").get("discard_unpacked_layers"))
        if discard is not None:
            found["discard"] = discard
    return found


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
