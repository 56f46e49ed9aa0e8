"""`speil demo`: see the package `demo`."""

from __future__ import annotations

import sys

from speil.cli.app import CommandError
from speil.cli.running import run_async
from speil.config import ConfigError
from speil.demo import DemoSettings
from speil.demo import run as run_demo

Settings = DemoSettings
NODES_MIN, NODES_MAX = 3, 10  # three: the leader is killed while one node pulls from another; ten: all on one machine
IMAGE_MIB_MAX = 2048  # of files in all layers, which are in memory


def run(settings: DemoSettings) -> int:
    """Run the demo. Raises ConfigError, CommandError."""
    if not NODES_MIN <= settings.nodes <= NODES_MAX:
        raise ConfigError(f"--nodes must be between {NODES_MIN} and {NODES_MAX}")
    for flag, value in (("--layers", settings.layers), ("--layer-mib", settings.layer_mib)):
        if value < 1:
            raise ConfigError(f"{flag} must be at least 1")
    if settings.layers * settings.layer_mib > IMAGE_MIB_MAX:
        raise ConfigError(f"--layers times --layer-mib must be at most {IMAGE_MIB_MAX}: the images are in memory")
    try:
        return run_async(run_demo(settings))
    except KeyboardInterrupt:
        print("\nspeil demo: interrupted; its nodes have ended and its files are gone", file=sys.stderr)
        raise
    except BrokenPipeError:
        raise  # `main` ends silently
    except OSError as error:
        raise CommandError(f"the demo can't run on this machine: {error}") from error
