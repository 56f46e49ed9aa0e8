"""`speil registry`: runs a node."""

from __future__ import annotations

import asyncio

from speil.cli.app import CommandError
from speil.config import ConfigError, NodeSettings
from speil.setting import SettingError

Settings = NodeSettings


def run(settings: NodeSettings) -> int:
    """Run until SIGTERM or SIGINT. Raises ConfigError, CommandError."""
    from speil import daemon  # here, so that the other commands do not load the node's libraries

    try:
        asyncio.run(daemon.run(settings))
    except (daemon.StartError, SettingError) as error:
        raise ConfigError(str(error)) from error
    except daemon.NodeFailedError as error:
        raise CommandError(str(error)) from error
    return 0
