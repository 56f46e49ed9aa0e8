"""`speil doctor`: prints one line for each check, with a remedy for each problem; exit code 1 if one fails."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from speil.cli.findings import OUTPUTS, check_image, show
from speil.cli.running import run_async
from speil.doctor.checks import findings
from speil.doctor.facts import gather, local_url
from speil.doctor.self_test import self_test
from speil.finding import Finding
from speil.hosts_toml.document import HostsTomlError, check_target
from speil.mirror.settings import MirrorSettings
from speil.progress import Progress
from speil.setting import (
    Kind,
    ListenAddress,
    SettingError,
    boolean,
    declared,
    each,
    listen_address,
    setting,
    socket_path,
    text,
)
from speil.store.settings import DEFAULT_CONFIG_FILE, StoreSettings

_DEFAULTS = {one.name: one.default for one in (*declared(MirrorSettings), *declared(StoreSettings))}
# set in every pod, and by the chart
POD_VARIABLES = ("KUBERNETES_SERVICE_HOST", "NODE_NAME")


def _target(value: str) -> str:
    try:
        return check_target(value)
    except HostsTomlError as error:
        raise SettingError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    image: str = setting(text, "", help="Pull this image through containerd and check that its requests arrive.")
    output: str = setting(OUTPUTS, "text", also=("-o",), help="How to print the findings. wide: one line for each.")
    quiet: bool = setting(boolean, False, also=("-q",), help="Show no progress on stderr.")
    mirror_targets: tuple[str, ...] = setting(
        each("URLs", _target), (), help="Where containerd reaches speil. Empty: --registry-addr on this node."
    )
    registry_addr: ListenAddress = setting(
        listen_address, _DEFAULTS["registry_addr"], help="Where this node's speil listens."
    )
    metrics_addr: ListenAddress = setting(
        listen_address, _DEFAULTS["metrics_addr"], help="Where this node's speil serves metrics."
    )
    containerd_sock: str = setting(socket_path, _DEFAULTS["containerd_sock"], help="containerd's socket.")
    containerd_namespace: str = setting(text, _DEFAULTS["containerd_namespace"], help="containerd's namespace.")
    containerd_registry_config_path: Path = setting(
        Kind("directory", Path), Path("/etc/containerd/certs.d"), help="Where hosts.toml files should be."
    )
    containerd_config: Path = setting(
        Kind("file", Path), Path(DEFAULT_CONFIG_FILE), help="containerd's configuration file."
    )


def run(settings: Settings) -> int:
    """Check, print, return the exit code."""
    check_image(settings.image)
    return show(run_async(_findings(settings)), settings.output)


async def _findings(settings: Settings) -> list[Finding]:
    metrics_url, registry_url = local_url(settings.metrics_addr), local_url(settings.registry_addr)
    facts = await gather(
        settings.containerd_sock,
        settings.containerd_namespace,
        settings.containerd_registry_config_path,
        settings.containerd_config,
        settings.mirror_targets or (registry_url,),
        metrics_url,
        registry_url,
        is_in_pod=any(os.environ.get(name) for name in POD_VARIABLES),
    )
    found = findings(facts)
    if settings.image and facts.containerd is not None:
        with Progress(quiet=settings.quiet) as progress:
            found.append(
                await self_test(
                    settings.containerd_sock, settings.containerd_namespace, metrics_url, settings.image, progress
                )
            )
    return found
