"""The settings of the registry port and the metrics port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from speil.mirror.filters import filters
from speil.oci.platform import Platform, PlatformError
from speil.oci.reference import is_registry
from speil.oci.selection import Pattern, Selection
from speil.setting import (
    Kind,
    ListenAddress,
    SettingError,
    boolean,
    byte_size,
    duration,
    each,
    integer,
    listen_address,
    setting,
)

ALL_REGISTRIES = ("_default", "*")
UPLOAD_LIMIT_MIN = 128 << 10  # peers take a node that sends less for broken


def parse_registry_url(value: str) -> str:
    """The registry host of `https://docker.io`; a scheme http or https, nothing behind the host."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not is_registry(parts.netloc):
        raise SettingError(f"{value!r} is not a registry URL: say something like https://docker.io")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise SettingError(f"{value!r} is not a registry URL: nothing may stand behind the host")
    return value.rstrip("/")


def parse_mirrored_registry(value: str) -> str:
    """A registry URL; "" for a name that stands for all of them, containerd's `_default` or k3s's `*`.

    Raises SettingError.
    """
    return "" if value in ALL_REGISTRIES else parse_registry_url(value)


def _namespace(value: str) -> str:
    if value and not is_registry(value):
        raise SettingError(f"{value!r} is not a registry host: say something like docker.io")
    return value


def _host_name(value: str) -> str:
    if not is_registry(value) or ":" in value:
        raise SettingError(f"{value!r} is not a host name: write it like speil.example.com, without a port")
    return value


def _upload_limit(value: str) -> int:
    limit: int = byte_size.parse(value)
    if 0 < limit < UPLOAD_LIMIT_MIN:
        least = byte_size.show(UPLOAD_LIMIT_MIN)
        raise SettingError(f"{value!r} is too little: say at least {least} (a second), or 0 for no limit")
    return limit


def _platform(value: str) -> Platform:
    try:
        return Platform.parse(value)
    except PlatformError as error:
        raise SettingError(str(error)) from error


registry_urls = each("registry URLs", parse_mirrored_registry, lambda url: url or ALL_REGISTRIES[0])
platforms = each("platforms", _platform)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """How this node serves containerd and its peers."""

    registry_addr: ListenAddress = setting(
        listen_address, ListenAddress("", 5000), help="Where the registry listens; all nodes use the same port."
    )
    metrics_addr: ListenAddress = setting(
        listen_address, ListenAddress("", 9090), help="Where metrics and the debug pages are served."
    )
    mirrored_registries: tuple[str, ...] = setting(
        registry_urls, (), help="Registries to mirror, such as https://docker.io. Empty, _default or *: all."
    )
    registry_filters: tuple[Pattern, ...] = setting(
        filters,
        (),
        help="What matches one of these is neither announced nor served: registry/repository for content, "
        "registry/repository:tag for tags. Go's syntax (RE2); on the command line each value is one pattern.",
    )
    resolve_tags: bool = setting(boolean, True, help="Answer tags from what nodes hold; without it digests alone.")
    node_platforms: tuple[Platform, ...] = setting(
        platforms,
        (),
        help="Platforms that this node's containerd pulls, such as linux/arm64: a tag is answered where the content of "
        "each is there. Empty: this machine's.",
    )
    mirror_resolve_timeout: float = setting(
        duration, 0.02, help="How long to look for a first peer before containerd is sent upstream; at most 800ms."
    )
    mirror_resolve_retries: int = setting(
        integer,
        3,
        help="How many peers may fail or be waited for at once; one that has nothing or is busy does not count.",
    )
    default_registry: str = setting(
        Kind("registry host", _namespace), "", help="The registry of requests without ns. Empty: tags need ns."
    )
    debug_web_enabled: bool = setting(boolean, True, help="Serve the page /debug/web/ on the metrics port.")
    debug_web_hosts: tuple[str, ...] = setting(
        each("host names", _host_name),
        (),
        help="Further names by which browsers reach /debug/web/. IP addresses, localhost, the node's name and those of "
        "Services need not be named; all others are refused.",
    )
    basic_auth_dir: Path = setting(
        Kind("directory", Path),
        Path("/etc/secrets/basic-auth"),
        help="Files username and password here switch basic auth on; the same on all nodes.",
    )
    zero_copy: bool = setting(
        boolean, True, help="Pass bodies on by splice and sendfile where sockets and kernel allow; false: copy them."
    )
    uploads_max: int = setting(integer, 64, help="Bodies sent to peers at once; beyond it they are sent elsewhere.")
    uploads_per_peer_max: int = setting(integer, 16, help="Bodies sent to one peer at once, where others need none.")
    upload_limit: int = setting(
        Kind("size", _upload_limit, byte_size.shower),
        0,
        help="Bytes a second for all blobs sent to peers together, such as 100MiB. 0: no limit.",
    )

    @property
    def mirrored_hosts(self) -> frozenset[str] | None:
        """The hosts of the registries that are mirrored; None: all are."""
        if not self.mirrored_registries or "" in self.mirrored_registries:
            return None
        return frozenset(urlsplit(url).netloc for url in self.mirrored_registries)

    def mirrors(self, registry: str) -> bool:
        """Whether requests for a registry host are served."""
        hosts = self.mirrored_hosts
        return hosts is None or registry in hosts

    @property
    def selection(self) -> Selection:
        """What may be announced and served."""
        hosts = self.mirrored_hosts
        is_open = hosts is None and not self.registry_filters
        return Selection(self.registry_filters, lambda registry: hosts is None or registry in hosts, is_open)
