"""`speil prepull`: run until ended. A pod that runs has its image, so the node has it too.

`helm upgrade` starts one on every node before it replaces the nodes' pods: while those run, a new image of speil comes
through them, from one pull of the upstream a region. Later it would come from the upstream on every node.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from speil.observe.logs import get_log

log = get_log("prepull")


@dataclass(frozen=True, slots=True)
class Settings:
    """None but those of the log."""


def run(settings: Settings) -> int:
    """Until SIGTERM or SIGINT."""
    ends = {signal.SIGTERM, signal.SIGINT}
    # sigwait takes what is blocked; a handler would be called elsewhere
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    log.info("running until ended")
    signal.sigwait(ends)
    return 0
