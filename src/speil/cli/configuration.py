"""`speil configuration`: adds speil to containerd's hosts.toml files."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from speil.border.http import NODE_TOKEN_HEADER
from speil.border.secret_file import SecretFile
from speil.cli.app import CommandError
from speil.config import ConfigError
from speil.host_config.tree import HostConfigError, configure, preview
from speil.hosts_toml.document import HostsTomlError, Mirrors, check_target
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.settings import MirrorSettings, registry_urls
from speil.observe.logs import get_log
from speil.region.secret import SecretError
from speil.region.settings import RegionSettings
from speil.region.token import is_node_name, sign_node
from speil.setting import Kind, SettingError, boolean, declared, each, setting

log = get_log("configuration")


def _target(value: str) -> str:
    try:
        return check_target(value)
    except HostsTomlError as error:
        raise SettingError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    region: RegionSettings
    mirror_targets: tuple[str, ...] = setting(
        each("URLs", _target), (), required=True, help="Where containerd reaches speil, in order of preference."
    )
    mirrored_registries: tuple[str, ...] = setting(
        registry_urls, (), help="Registries to mirror, such as https://docker.io. Empty, _default or *: all."
    )
    resolve_tags: bool = setting(boolean, True, help="Let speil answer tags too, not digests alone.")
    prepend_existing: bool = setting(
        boolean, False, help="Keep the hosts (and certificates) that are configured, behind speil."
    )
    dry_run: bool = setting(boolean, False, help="Print what would change, a diff of each file, and change nothing.")
    containerd_registry_config_path: Path = setting(
        Kind("directory", Path), Path("/etc/containerd/certs.d"), help="containerd's registry config_path."
    )
    basic_auth_dir: Path = setting(
        Kind("directory", Path),
        next(one.default for one in declared(MirrorSettings) if one.name == "basic_auth_dir"),
        help="Files username and password here are sent to the mirror.",
    )


def _headers(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The headers that containerd has to send: basic auth, and the token of this node. Raises ConfigError."""
    headers = []
    auth = BasicAuth(settings.basic_auth_dir)
    if authorization := auth.header:
        headers.append(("Authorization", authorization))
    elif auth.failure:
        raise ConfigError(f"--basic-auth-dir: {auth.failure}")
    if path := settings.region.region_secret_file:
        region = settings.region.identity().region
        if not region and settings.region.topology_from_node:
            raise ConfigError(
                "--region must be set: this node's token is made for its region, which this command does not read "
                "from the node"
            )
        try:
            keys = SecretFile(Path(path), region).secret.node_keys
        except SecretError as error:
            raise ConfigError(f"--region-secret-file: {error}") from error
        node = settings.region.node_name or socket.gethostname()
        if not is_node_name(node):
            raise ConfigError(f"--node-name: {node!r} is not a node's name: use letters, digits, '.' and '-'")
        headers.append((NODE_TOKEN_HEADER, sign_node(keys[0], node, int(time.time()))))
    return tuple(headers)


def run(settings: Settings) -> int:
    """Write the files, or print the difference with --dry-run."""
    registries = settings.mirrored_registries
    mirrors = Mirrors(settings.mirror_targets, settings.resolve_tags, _headers(settings))
    directory = settings.containerd_registry_config_path
    prepend = settings.prepend_existing
    try:
        if settings.dry_run:
            sys.stdout.write(preview(directory, registries, mirrors, prepend_existing=prepend))
            return 0
        written = configure(directory, registries, mirrors, prepend_existing=prepend, say=log.warning)
    except HostConfigError as error:
        raise CommandError(str(error)) from error
    log.info("hosts.toml files written", directory=directory, registries=written)
    return 0
