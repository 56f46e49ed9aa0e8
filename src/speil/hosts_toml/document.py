"""A hosts.toml as speil writes it: byte for byte what Spegel 0.7.4 writes in the plain case."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from speil.oci.reference import is_registry

DIAL_TIMEOUT = "200ms"  # Spegel's; containerd 1.6 ignores it, 2.1 and later obey
DEFAULT_DIRECTORY = "_default"  # serves registries without a directory of their own
DOCKER_HUB, DOCKER_HUB_SERVER = "docker.io", "https://registry-1.docker.io"
_BARE_IPV6 = re.compile(r"(https?://)([0-9a-fA-F:.]+)(:\d+/?)")


class HostsTomlError(ValueError):
    """A hosts.toml or an URL for it that containerd would not take; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """What goes in front of every mirrored registry; `headers` are sent along (names as bare TOML keys)."""

    targets: tuple[str, ...]
    resolve_tags: bool = True
    headers: tuple[tuple[str, str], ...] = ()


def directory_of(registry_url: str) -> str:
    """The directory's name for a registry URL; `_default` for the empty one."""
    return urlsplit(registry_url).netloc if registry_url else DEFAULT_DIRECTORY


def server_of(registry_url: str) -> str | None:
    """The `server` line's value: where containerd goes when no mirror answers; None for all registries."""
    if not registry_url:
        return None
    return DOCKER_HUB_SERVER if urlsplit(registry_url).netloc == DOCKER_HUB else registry_url


def check_target(url: str) -> str:
    """A mirror target: scheme, host, optional port and path. Raises HostsTomlError.

    A bare IPv6 address with a port behind it, as `http://$(NODE_IP):30020` becomes in a cluster of IPv6, gets its
    brackets.
    """
    if (bare := _BARE_IPV6.fullmatch(url)) and _is_ipv6(bare[2]):
        url = f"{bare[1]}[{bare[2]}]{bare[3]}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not is_registry(parts.netloc) or parts.query or parts.fragment:
        raise HostsTomlError(f"{url!r} is not a mirror target: say something like http://127.0.0.1:5000")
    return url.rstrip("/")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def render(registry_url: str, mirrors: Mirrors, existing: str = "") -> str:
    """The text for one registry, our mirrors in front of the hosts of an `existing` text.

    An existing `server` (and what belongs to it: `ca`, `client`, `skip_verify`) is kept: the operator chose it.
    Raises HostsTomlError where the existing text is not TOML.
    """
    known = parse(existing) if existing else {}
    hosts = known.pop("host", {})
    head = {"server": server_of(registry_url), **known}
    blocks = ["\n".join(f"{key} = {_value(value)}" for key, value in head.items() if value is not None)]
    blocks += [_target_block(target, mirrors) for target in mirrors.targets]
    for url, table in hosts.items():
        if url not in mirrors.targets:
            blocks.append(tomli_w.dumps({"host": {url: table}}).strip())
    return "\n\n".join(block for block in blocks if block)


def parse(text: str) -> dict[str, Any]:
    """The TOML document. Raises HostsTomlError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HostsTomlError(f"not TOML: {error}") from error


def _target_block(target: str, mirrors: Mirrors) -> str:
    capabilities = "['pull', 'resolve']" if mirrors.resolve_tags else "['pull']"
    lines = [f"[host.'{target}']", f"capabilities = {capabilities}", f"dial_timeout = '{DIAL_TIMEOUT}'"]
    if mirrors.headers:
        lines += ["", f"[host.'{target}'.header]", *(f"{name} = '{value}'" for name, value in mirrors.headers)]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[ -&(-~]*", value):
        return f"'{value}'"
    return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()
