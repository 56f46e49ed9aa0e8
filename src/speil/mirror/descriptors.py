"""The file descriptors that the data plane can need at once.

When they run out no pull fails: a body is copied instead of spliced, a peer is not asked, containerd is sent upstream,
a new connection is turned away (`turn_away`). But each of these costs time.
"""

from __future__ import annotations

import resource

from speil.mirror.open_requests import REQUESTS_MAX
from speil.mirror.server import CONNECTIONS
from speil.observe.logs import get_log
from speil.wire.pipes import PIPES_MAX

# a relay holds a connection, a duplicate of it, and one to the peer; 500 for libp2p, the store and all the rest
DESCRIPTORS_WANTED = CONNECTIONS.total + 2 * REQUESTS_MAX + 2 * PIPES_MAX + 500

log = get_log("daemon")


def raise_limit() -> int:
    """Raise the soft limit to the hard one; the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < DESCRIPTORS_WANTED:
        log.warning("few file descriptors: raise the limit (LimitNOFILE)", have=hard, wanted=DESCRIPTORS_WANTED)
    return hard
