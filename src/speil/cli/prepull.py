"""`speil prepull`: run until ended. A pod that runs has its image, so the node has it too.

`helm upgrade` starts one on every node before it replaces the nodes' pods: while those run, a new image of speil comes
through them, from one pull of the upstream a region. Later it would come from the upstream on every node.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """None but those of the log."""


def run(settings: Settings) -> int:
    """Until SIGTERM or SIGINT."""
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0
