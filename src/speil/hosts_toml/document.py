"""Renders hosts.toml files. A new file is byte for byte the same as that of Spegel 0.7.4.

The text of an existing file is kept, and our tables are inserted before its first table.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from speil.hosts_toml.containerd import DEFAULT_DIRECTORY
from speil.hosts_toml.sections import Section, split
from speil.hosts_toml.targets import HostsTomlError, check_target, once_each, same_target

__all__ = [
    "DEFAULT_DIRECTORY",
    "HostsTomlError",
    "Mirrors",
    "check_target",
    "directory_of",
    "moved",
    "parse",
    "render",
    "server_of",
    "without_targets",
]

DIAL_TIMEOUT = "200ms"  # as Spegel; containerd 1.6 ignores it, 2.1 and later use it
DOCKER_HUB, DOCKER_HUB_SERVER = "docker.io", "https://registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The hosts to add in front of each mirrored registry.

    `targets`: URLs. `resolve_tags`: containerd may ask them for tags. `headers`: (name, value) pairs that containerd
    sends to them; names must be bare TOML keys.
    """

    targets: tuple[str, ...]
    resolve_tags: bool = True
    headers: tuple[tuple[str, str], ...] = ()


def directory_of(registry_url: str) -> str:
    """The directory name for a registry URL; `_default` for ""."""
    return urlsplit(registry_url).netloc if registry_url else DEFAULT_DIRECTORY


def server_of(registry_url: str) -> str | None:
    """The value of the `server` line, the host that containerd asks last; None for ""."""
    if not registry_url:
        return None
    return DOCKER_HUB_SERVER if urlsplit(registry_url).netloc == DOCKER_HUB else registry_url


def render(
    registry_url: str, mirrors: Mirrors, existing: str = "", certificates: dict[str, list[Any]] | None = None
) -> str:
    """The hosts.toml of one registry, with our mirrors before the hosts of the `existing` text.

    The existing text and its comments are kept, except hosts that are our targets. If it has no `server` line, none is
    added: containerd then asks its default host, as without the file. `certificates`: the `ca` and `client` values of
    the server, for a new file. Raises HostsTomlError if the existing text is not TOML or can't be kept.
    """
    targets = once_each(mirrors.targets)
    blocks = [_target_block(target, mirrors) for target in targets]
    if existing.strip():
        return _in_front(blocks, targets, existing)
    head = {"server": server_of(registry_url), **(certificates or {})}
    root = "\n".join(f"{key} = {_value(value)}" for key, value in head.items() if value)
    return "\n\n".join(block for block in (root, *blocks) if block)


def without_targets(text: str, targets: tuple[str, ...]) -> str:
    """Remove the hosts that are one of `targets` from a text. Raises HostsTomlError."""
    parse(text)
    root, sections = split(text)
    return "".join((root, *(section.tail if _is_of(section, targets) else section.text for section in sections)))


def moved(text: str, prefix: str) -> str:
    """The text for another directory: add `prefix` to relative certificate paths. Raises HostsTomlError."""
    document = parse(text)
    hosts = document.get("host", {})
    tables = [document, *(hosts.values() if isinstance(hosts, dict) else ())]
    changed = [_move(table, prefix) for table in tables if isinstance(table, dict)]
    return tomli_w.dumps(document) if any(changed) else text


def parse(text: str) -> dict[str, Any]:
    """Parse TOML. Raises HostsTomlError."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise HostsTomlError(f"not TOML: {error}") from error


def _in_front(blocks: list[str], targets: tuple[str, ...], existing: str) -> str:
    document = parse(existing)
    hosts = document.get("host", {})
    if not isinstance(hosts, dict):
        raise HostsTomlError("not a hosts.toml: its `host` is not a table")
    ours = parse("\n\n".join(blocks)).get("host", {})
    kept = {url: table for url, table in hosts.items() if not any(same_target(url, one) for one in targets)}
    wanted = {**document, "host": {**ours, **kept}}

    root, sections = split(existing)
    rest = [section.tail if _is_of(section, targets) else section.text for section in sections]
    # a removed host may leave a comment that belongs to the next table
    text = "\n\n".join(part for part in (root.rstrip(), *blocks, "".join(rest).rstrip("\n")) if part)
    if _reads_as(text, wanted):
        return text
    rendered = tomli_w.dumps({key: value for key, value in wanted.items() if key != "host"}).strip()
    tables = [section for section in _split_tables(rendered) if section]
    text = "\n\n".join([*tables[:1], *blocks, *tables[1:], *(_host_table(url, table) for url, table in kept.items())])
    if not _reads_as(text, wanted):
        raise HostsTomlError('written in a form in which no host can be put in front: use [host."URL"] tables')
    return text.strip()


def _split_tables(text: str) -> list[str]:
    root, sections = split(text)
    return [root.strip(), "".join(section.text for section in sections).strip()]


def _host_table(url: str, table: Any) -> str:
    return tomli_w.dumps({"host": {url: table}}).strip()


def _reads_as(text: str, wanted: dict[str, Any]) -> bool:
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return found == wanted and list(found["host"]) == list(wanted["host"])


def _is_of(section: Section, targets: tuple[str, ...]) -> bool:
    return (
        len(section.path) >= 2
        and section.path[0] == "host"
        and any(same_target(section.path[1], target) for target in targets)
    )


def _move(table: dict[str, Any], prefix: str) -> bool:
    """Add the prefix in a table; returns whether something changed."""

    def one(path: Any) -> Any:
        if isinstance(path, list):
            return [one(item) for item in path]
        return f"{prefix}{path}" if isinstance(path, str) and path and not path.startswith("/") else path

    before = dict(table)
    for key in ("ca", "client"):
        if key in table:
            table[key] = one(table[key])
    return before != table


def _target_block(target: str, mirrors: Mirrors) -> str:
    capabilities = "['pull', 'resolve']" if mirrors.resolve_tags else "['pull']"
    lines = [f"[host.'{target}']", f"capabilities = {capabilities}", f"dial_timeout = '{DIAL_TIMEOUT}'"]
    if mirrors.headers:
        lines += ["", f"[host.'{target}'.header]", *(f"{name} = '{value}'" for name, value in mirrors.headers)]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, str) and re.fullmatch(r"[ -&(-~]*", value):
        return f"'{value}'"
    return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()
