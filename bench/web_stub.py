"""A fleet of metrics ports for the bench of `speil region web`: one process, an address of 127.40.0.0/16 for each node.

    python -m bench.web_stub PORT NODES

Each answers `/debug/state?brief=true` as a node of a large region does: with the peers of its routing table, counters
that grow, bytes of some peers, and downloads under way.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import time
from random import Random

from speil.http1.message import Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.setting import ListenAddress

REGIONS, ZONES = 4, 3
TABLE_PEERS = 130  # of a node's routing table, at a thousand nodes
SENDERS, DOWNLOADS = 8, 3
STARTED = time.time()


def host(number: int) -> str:
    """The address of node `number`."""
    return f"127.40.{number // 250}.{number % 250 + 1}"


@functools.cache
def table(number: int, nodes: int) -> list[tuple[int, str]]:
    """The peers in a node's routing table: numbers and ids."""
    mates = [one for one in range(nodes) if one % REGIONS == number % REGIONS and one != number]
    return [(one, f"12D3KooW{one:044d}") for one in Random(number).sample(mates, min(TABLE_PEERS, len(mates)))]


def state(number: int, nodes: int) -> dict[str, object]:
    """The state of a node now."""
    now, region, peers = time.time() - STARTED, number % REGIONS, table(number, nodes)
    served = int(now * 1e6)
    traffic = {"hits": int(now), "misses": 1, "own_bytes": served, "peer_bytes": served, "sent_bytes": served}
    return {
        "version": "0", "region": f"r{region}", "zone": f"z{number // REGIONS % ZONES}", "region_from": "lease names",
        "topology_region": "", "has_secret": True, "has_networks": False, "lease": f"speil-r{region}/speil",
        "lease_is_foreign": False, "peer_id": f"12D3KooW{number:044d}", "addresses": f"/ip4/{host(number)}/tcp/5001",
        "started_at": STARTED, "ready": True, "leads": number < REGIONS,
        "peers": [{"peer": name, "hosts": host(one), "zone": f"z{one // REGIONS % ZONES}"} for one, name in peers],
        "traffic": {"docker.io": {**traffic, "upstream_bytes": served // 10}},
        "from_peers": [{"peer": name, "bytes": served, "minute": 1 << 20} for _, name in peers[:SENDERS]],
        "requests_in_flight": [
            {
                "key": f"sha256:{one:064x}", "image": "docker.io/library/app", "role": "getting",
                "peer": peers[one][1], "offset": int(now * 1e6) % (64 << 20), "total": 64 << 20, "seconds": 1.0,
            }
            for one in range(min(DOWNLOADS, len(peers)))
        ],
        "rejected": {}, "kept_out": [],
    }  # fmt: skip


async def _serve(port: int, nodes: int) -> None:
    numbers = {host(number): number for number in range(nodes)}

    async def answer(request: Request, reply: Reply) -> None:
        number = numbers[request.headers["Host"].partition(":")[0]]
        await reply.send(200, [("Content-Type", "application/json")], json.dumps(state(number, nodes)).encode())

    bounds = Bounds(total=4096, own=4096, per_share=4096)
    async with GuardedServer("stub", answer, bounds).serve(ListenAddress("0.0.0.0", port)):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
