"""A model of containerd's rules for registry hosts: which directory it reads, and which hosts a hosts.toml has.

It models `remotes/docker/config` of containerd 1.6 and 2.x. speil checks a configuration with it before putting the
configuration in place. A system test compares the model with both versions.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from speil.hosts_toml.sections import split

HOSTS_FILE = "hosts.toml"
DEFAULT_DIRECTORY = "_default"
_DURATION = re.compile(r"[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+|[+-]?0")

Folder = Mapping[str, bytes]  # the directory of a registry: contents by file name
Folders = Mapping[str, Folder]


class Generation(Enum):
    """containerd versions that read hosts.toml in the same way."""

    V1 = "containerd 1.6"
    V2 = "containerd 2"


class RejectedError(ValueError):
    """containerd would ignore this hosts.toml. The message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host that containerd asks. The paths of certificates are absolute."""

    scheme: str = ""
    host: str = ""
    path: str = ""
    capabilities: frozenset[str] = frozenset()
    ca: tuple[str, ...] | None = None
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool | None = None
    header: tuple[tuple[str, tuple[str, ...]], ...] = ()
    dial_timeout: str = ""

    @property
    def url(self) -> str:
        """The base URL of its requests."""
        return f"{self.scheme}://{self.host}{self.path}"


def directories_of(registry: str) -> tuple[str, ...]:
    """The directory names that containerd tries for a registry. It reads only the first that exists."""
    before, colon, port = registry.rpartition(":")
    with_port = (f"{before}_{port}_",) if colon and before else ()
    return (*with_port, registry, DEFAULT_DIRECTORY)


def resolve(folders: Folders, registry: str, generation: Generation, root: str = "/certs.d") -> list[Host]:
    """The hosts that containerd asks for content of a registry, in order."""
    name = next((name for name in directories_of(registry) if name in folders), None)
    hosts = [Host()] if name is None else _load(folders[name], f"{root}/{name}", generation)
    if hosts and not hosts[-1].host:
        hosts[-1] = _default_host(hosts[-1], registry, generation)
    return hosts


def read_hosts(text: str, base: str, generation: Generation) -> list[Host]:
    """The hosts of a hosts.toml in the directory `base`; the server comes last. Raises RejectedError."""
    try:
        document = tomllib.loads(text)
        _, sections = split(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RejectedError(f"not TOML: {error}") from error
    tables = document.get("host", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise RejectedError("[host] is not a table of tables")
    if generation is Generation.V1:
        if "host" not in document:
            raise RejectedError("it has no [host] table")
        # in the order of their table headers; hosts without a header (inline tables) come first
        headers = {section.path[1] for section in sections if section.path[:1] == ("host",) and len(section.path) > 1}
        order = sorted(tables, key=lambda url: url in headers)
    else:
        order = []
        for section in sections:
            is_host = len(section.path) >= 2 and section.path[0] == "host"
            if is_host and (not order or section.path[1] != order[-1]):
                order.append(section.path[1])
    hosts = [_host(url, tables.get(url, {}), base, generation) for url in order]
    return [*hosts, _host(_typed(document, "server", str, ""), document, base, generation)]


def certificate_files(names: Mapping[str, object], keys: Mapping[str, object]) -> tuple[list[str], list[list[str]]]:
    """The CA files, and the pairs of client certificate and key, by the file names of Docker's layout.

    A certificate without a key file contains its key. The pair then names it twice, because containerd would resolve an
    empty name to the directory.
    """
    ca = sorted(name for name in names if name.endswith(".crt"))
    client = []
    for name in sorted(name for name in names if name.endswith(".cert")):
        key = name.removesuffix(".cert") + ".key"
        client.append([name, key if key in keys else name])
    return ca, client


def _load(folder: Folder, base: str, generation: Generation) -> list[Host]:
    if content := folder.get(HOSTS_FILE, b""):
        try:
            return read_hosts(content.decode(), base, generation)
        except (RejectedError, UnicodeDecodeError):
            pass  # containerd logs the error and continues without the file
    ca, client = certificate_files(folder, folder)
    pairs = tuple((f"{base}/{one}", f"{base}/{other}") for one, other in client)
    return [Host(ca=tuple(f"{base}/{name}" for name in ca) or None, client=pairs)]


def _default_host(host: Host, registry: str, generation: Generation) -> Host:
    every = frozenset(("pull", "resolve", "push"))
    found = replace(host, scheme="https", host=registry, path="/v2", capabilities=every)
    if registry == "docker.io":
        return replace(found, host="registry-1.docker.io")
    if not is_localhost(registry):
        return found
    port = registry.rpartition(":")[2] if re.search(r":[0-9]+$", registry) else ""
    if generation is Generation.V1:
        return replace(found, scheme="http", skip_verify=True)
    scheme = "https" if port in ("", "443") else "http"
    return replace(found, scheme=scheme, skip_verify=host.skip_verify if port == "80" else True)


def is_localhost(registry: str) -> bool:
    """Whether the registry is on this machine. containerd then uses other defaults for scheme and certificates."""
    name = urlsplit(f"//{registry}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host(url: str, table: dict[str, Any], base: str, generation: Generation) -> Host:
    scheme = host = path = ""
    if url:
        try:
            parts = urlsplit(url if url.startswith("http") else f"https://{url}")
            _ = parts.port
        except ValueError as error:
            raise RejectedError(f"{url!r} is no URL: {error}") from error
        scheme, host, path = parts.scheme, parts.netloc, parts.path
        override = _typed(table, "override_path", bool, False)
        if path:
            path = posixpath.normpath(path)
            path = path if path.endswith("/v2") or override else f"{path.rstrip('/')}/v2"
        elif not override:
            path = "/v2"
    known = {"pull", "resolve", "push"} | ({"referrers"} if generation is Generation.V2 else set())
    capabilities = frozenset(one.lower() for one in _strings(table, "capabilities"))
    if unknown := capabilities - known:
        raise RejectedError(f"{url or 'server'}: unknown capability {', '.join(sorted(unknown))}")
    header = _typed(table, "header", dict, {})
    timeout = _typed(table, "dial_timeout", str, "") if generation is Generation.V2 else ""
    if timeout and not _DURATION.fullmatch(timeout):
        raise RejectedError(f"{url}: dial_timeout {timeout!r} is not a duration")
    skip_verify: bool | None = _typed(table, "skip_verify", bool, None)
    return Host(
        scheme,
        host,
        path,
        capabilities - {"referrers"} or frozenset(known - {"referrers"}),
        tuple(_absolute(one, base) for one in _strings(table, "ca")) if "ca" in table else None,
        _client(table, base),
        skip_verify,
        tuple(sorted((name, tuple(_strings(header, name))) for name in header)),
        timeout,
    )


def _client(table: dict[str, Any], base: str) -> tuple[tuple[str, str], ...]:
    value = table.get("client", [])
    pairs = []
    for item in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        if isinstance(item, str):
            pairs.append((_absolute(item, base), _absolute(item, base)))
        elif isinstance(item, list) and len(item) == 2 and all(isinstance(one, str) for one in item):
            pairs.append((_absolute(item[0], base), _absolute(item[1], base)))
        else:
            raise RejectedError('"client" is neither a path nor a list of paths or of pairs of paths')
    return tuple(pairs)


def _strings(table: dict[str, Any], key: str) -> list[str]:
    value = table.get(key, [])
    if isinstance(value, str) and key != "capabilities":
        return [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RejectedError(f'"{key}" is not a list of texts')
    return value


def _typed(table: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if value is not default and not isinstance(value, kind):
        raise RejectedError(f'"{key}" is not of its type')
    return value


def _absolute(path: str, base: str) -> str:
    return path if path.startswith("/") else posixpath.normpath(f"{base}/{path}")
