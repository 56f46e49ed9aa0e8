"""A node that has everything of a region except its secret, and tries every port of every node.

    python -m tests.system.lab.hostile < PLAN > REPORT

PLAN names the region, its nodes (address, libp2p id), keys and paths, tokens of true requests that were overheard
(method, address, target, token), and another region's name. REPORT says what came of it: how many connections
were made and DHT messages answered, and of every HTTP request its kind, status and body bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp

from speil.border.http import MIRRORED_HEADER, NODE_TOKEN_HEADER, REGION_HEADER, TOKEN_HEADER
from speil.kad.message import Message, MessageType
from speil.libp2p.error import Libp2pError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.observe.metrics import Metrics
from speil.region.policy import protocols_of
from speil.region.secret import parse
from speil.region.token import Request, sign_node, sign_request
from speil.setting import ListenAddress

GUESS = "a guess at the secret of the region"
MESSAGE_BYTES_MAX = 1 << 20


async def knock(plan: dict[str, Any], psks: tuple[bytes, ...]) -> dict[str, int]:
    """Shake hands with every node, then ask for closer peers and announce every key."""
    report = {"connections": 0, "answers": 0}
    host = Host(
        Identity.generate(),
        ListenAddress("", 5001),
        agent_version="speil/0.1.0",
        metrics=Metrics(),
        extra_protocols=protocols_of(plan["region"], ""),
        psks=lambda: psks,
    )
    kad = f"/speil/{plan['region']}/kad/1.0.0"
    async with host:
        host.set_handler(kad, lambda stream: asyncio.sleep(0))
        for node in plan["nodes"]:
            target = Multiaddr.parse(f"/ip4/{node['address']}/tcp/5001").with_peer_id(PeerId.parse(node["peer_id"]))
            try:
                connection = await host.connect(target)
                report["connections"] += 1
                stream = await connection.open_stream(kad)
                for key in plan["keys"]:
                    provide = Message(MessageType.ADD_PROVIDER, content_key(key), (), (host.local,))
                    await stream.write_message(provide.encode())
                    await stream.write_message(Message(MessageType.FIND_NODE, content_key(key)).encode())
                    report["answers"] += await stream.read_message(MESSAGE_BYTES_MAX) is not None
            except Libp2pError:
                continue
    return report


async def ask(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Every path of every node, with every set of headers there is."""
    keys = parse(GUESS, plan["region"])
    peer = {MIRRORED_HEADER: "true"}
    named = {**peer, REGION_HEADER: plan["region"]}

    def forged(node: dict[str, str], target: str) -> str:
        request = Request("GET", target, node["peer_id"])
        return sign_request(keys.peer_keys[0], request, issued=int(time.time()), nonce="ab" * 8)

    requests: list[tuple[str, str, str, str, dict[str, str]]] = []
    for node in plan["nodes"]:
        for target in plan["targets"]:
            kinds = {
                "no headers": {},
                "a forged node token": {NODE_TOKEN_HEADER: sign_node(keys.node_keys[0], "node-1")},
                "as a Spegel": peer,
                "as another region": {**peer, REGION_HEADER: plan["other_region"]},
                "as the region": named,
                "a forged token": {**named, TOKEN_HEADER: forged(node, target)},
            }
            requests += [(kind, "GET", node["address"], target, headers) for kind, headers in kinds.items()]
        for true in plan["tokens"]:
            kind = "a token once more" if true["address"] == node["address"] else "a token of another node"
            headers = {**named, TOKEN_HEADER: true["token"]}
            requests.append((kind, true["method"], node["address"], true["target"], headers))
    async with aiohttp.ClientSession() as session:

        async def one(kind: str, method: str, address: str, target: str, headers: dict[str, str]) -> dict[str, Any]:
            async with session.request(method, f"http://{address}:5000{target}", headers=headers) as answer:
                return {"kind": kind, "address": address, "status": answer.status, "bytes": len(await answer.read())}

        return list(await asyncio.gather(*(one(*request) for request in requests)))


async def main() -> None:
    """See the module."""
    plan = json.load(sys.stdin)
    report: dict[str, Any] = {
        "without a secret": await knock(plan, ()),
        "with a guess": await knock(plan, parse(GUESS, plan["region"]).noise_keys),
        "http": await ask(plan),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
