"""`speil demo`: see the package `demo`."""

from __future__ import annotations

import sys

from speil.cli.app import CommandError
from speil.cli.running import run_async
from speil.config import ConfigError
from speil.demo import DemoSettings
from speil.demo import run as run_demo

Settings = DemoSettings
NODES_MIN, NODES_MAX = (
    3,
    10,
)  # three: the leader is killed while one node pulls from another; ten: all run on one machine


def run(settings: DemoSettings) -> int:
    """Run the demo. Raises ConfigError, CommandError."""
    if not NODES_MIN <= settings.nodes <= NODES_MAX:
        raise ConfigError(f"--nodes must be between {NODES_MIN} and {NODES_MAX}")
    try:
        return run_async(run_demo(settings))
    except KeyboardInterrupt:
        print("\nspeil demo: interrupted; its nodes have ended and its files are gone", file=sys.stderr)
        raise
    except BrokenPipeError:
        raise  # `main` ends silently
    except OSError as error:
        raise CommandError(f"the demo can't run on this machine: {error}") from error
