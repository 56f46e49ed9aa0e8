"""`speil prepull`: run until ended. A pod that runs has its image, so the node has it too.

`helm upgrade` starts one on every node before it replaces the nodes' pods: while those run, a new image of speil comes
through them, from one pull of the upstream a region. Later it would come from the upstream on every node.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.setting import duration, setting

log = get_log("prepull")


@dataclass(frozen=True, slots=True)
class Settings:
    """For how long, beside those of the log."""

    settle: float = setting(
        duration,
        0.0,
        help="How long to run; 0: until ended. The node that pulls a new image first runs for some seconds, in which "
        "its speil announces the image.",
    )


def run(settings: Settings) -> int:
    """Until SIGTERM, SIGINT, or the end of `settle`."""
    ends = {signal.SIGTERM, signal.SIGINT}
    # sigwait takes what is blocked; a handler would be called elsewhere
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    if settings.settle:
        log.info("running for a time", seconds=settings.settle)
        signal.sigtimedwait(ends, settings.settle)
    else:
        log.info("running until ended")
        signal.sigwait(ends)
    return 0
