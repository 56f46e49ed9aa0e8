"""The transfers under way, for the debug page."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

from speil.claims.states import FETCHES
from speil.inflight.pulls import Pulls
from speil.inflight.serving import Followers
from speil.sources.growing import GrowingBlob

ROWS_MAX = 100  # a node downloads a few layers at a time


def transfers(pulls: Pulls, followers: Followers) -> list[dict[str, Any]]:
    """JSON objects: what this node fetches, follows and serves. Sizes are bytes; `total` is 0 while unknown."""
    now = asyncio.get_running_loop().time()
    rows = [
        {
            "key": str(flight.digest),
            "role": "fetching" if pulls.state(flight) in FETCHES else "following",
            "peer": str(flight.source.peer_id) if flight.source else "",
            "offset": pulls.offset(flight),
            "total": flight.total,
            "seconds": round(now - flight.started, 1),
        }
        for flight in islice(pulls.flights, ROWS_MAX)
    ]
    rows += [
        {
            "key": str(one.opened.digest),
            "role": "serving",
            "peer": one.host,
            "offset": one.opened.offset if isinstance(one.opened, GrowingBlob) else 0,
            "total": one.opened.size,
            "seconds": round(now - one.since, 1),
        }
        for one in islice(followers, ROWS_MAX)
    ]
    return rows
