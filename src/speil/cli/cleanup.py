"""`speil cleanup`: removes speil from containerd's hosts.toml files and restores the operator's.

With an address it then answers a probe until it is ended: an uninstallation runs it on every node, and `cleanup-wait`
waits until all of them answer.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speil.cli.app import CommandError
from speil.config import ConfigError
from speil.host_config.tree import HostConfigError, restore
from speil.http1.places import Bounds
from speil.observe.logs import get_log
from speil.setting import Kind, ListenAddress, listen_address, setting

if TYPE_CHECKING:
    from speil.http1.message import Request
    from speil.http1.reply import Reply

# of the uninstalling pods, each for moments, and of the kubelet's probe
CONNECTIONS = Bounds(total=64, own=8, per_share=32)

log = get_log("cleanup")


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    addr: ListenAddress | None = setting(
        listen_address, None, help="Where to answer a probe when the files are restored, until ended. Empty: end then."
    )
    containerd_registry_config_path: Path = setting(
        Kind("directory", Path), Path("/etc/containerd/certs.d"), help="containerd's registry config_path."
    )


def run(settings: Settings) -> int:
    """Restore the files. With an address, then answer 200 until SIGTERM or SIGINT."""
    directory = settings.containerd_registry_config_path
    try:
        restored = restore(directory)
    except HostConfigError as error:
        raise CommandError(str(error)) from error
    log.info("hosts.toml files restored" if restored else "nothing to restore", directory=directory)
    if settings.addr is None:
        return 0
    try:
        asyncio.run(_serve(settings.addr))
    except OSError as error:
        raise ConfigError(f"--addr: can't listen on {settings.addr}: {error.strerror}") from error
    return 0


async def _serve(address: ListenAddress) -> None:
    from speil.http1.server import GuardedServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(200)

    async with GuardedServer("cleanup", answer, CONNECTIONS).serve(address):
        await stop.wait()
