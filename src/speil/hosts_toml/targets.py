"""Mirror targets: validates and compares the URLs at which containerd reaches speil."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from speil.oci.reference import is_registry

_BARE_IPV6 = re.compile(r"(https?://)([0-9a-fA-F:.]+)(:\d+/?)")
_PATH = re.compile(r"[A-Za-z0-9._~/%+:@,;=&!$()*-]*")  # of a URL, without characters that a TOML string can't contain


class HostsTomlError(ValueError):
    """containerd would not accept this hosts.toml or URL. The message says what is wrong."""


def check_target(url: str) -> str:
    """Validate a mirror target (scheme, host, optional port and path) and normalise it. Raises HostsTomlError.

    A bare IPv6 address with a port gets brackets: `http://$(NODE_IP):30020` becomes one in an IPv6 cluster.
    """
    if (bare := _BARE_IPV6.fullmatch(url)) and _is_ipv6(bare[2]):
        url = f"{bare[1]}[{bare[2]}]{bare[3]}"
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in ("http", "https")
            and is_registry(parts.netloc)
            and (parts.port is None or parts.port > 0)
            and _PATH.fullmatch(parts.path) is not None
            and f"{parts.scheme}://{parts.netloc}{parts.path}".lower() == url.lower()
        )
    except ValueError:
        good = False
    if not good:
        raise HostsTomlError(f"{url!r} is not a mirror target: use a URL such as http://127.0.0.1:5000")
    return url.rstrip("/")


def same_target(one: str, other: str) -> bool:
    """Whether two URLs name the same host, in whatever spelling."""
    return _normal(one) == _normal(other)


def once_each(targets: tuple[str, ...]) -> tuple[str, ...]:
    """The targets in order without duplicates: a repeated table would make the TOML invalid."""
    found: dict[tuple[str, str, int | None, str], str] = {}
    for target in targets:
        found.setdefault(_normal(target), target)
    return tuple(found.values())


def _normal(url: str) -> tuple[str, str, int | None, str]:
    try:
        url = check_target(url)
    except HostsTomlError:
        return (url, "", None, "")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_ipv6(host):
        host = IPv6Address(host).compressed
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.scheme, host, port, parts.path.rstrip("/").removesuffix("/v2"))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
