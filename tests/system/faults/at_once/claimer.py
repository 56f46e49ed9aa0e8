"""A member of the mesh that claims to download everything, and delivers nothing, or garbage.

    python -m tests.system.faults.at_once.claimer PLAN

PLAN is the JSON of `tests.system.faults.liar`, with two more fields. `umpire_of` is a key to which its identity is
closer than every node ("" for any identity). `region` has a secret that it does not know ("" for no region). It asks
each node for each key, as a node does whose containerd misses the content; so it holds the claims when the nodes ask.
As a source it says that it is alive and fetches; as an umpire it names itself. Its registry answers as the liar's.

It says "announced N" with the number of claims that it was given, or "refused" where no node talks to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from speil.claims.codec import decode, encode
from speil.claims.message import Ask, AskStatus, Fetch, Follow, Phase, Status
from speil.kad.key import place
from speil.kad.message import Message, MessageType
from speil.libp2p.error import Libp2pError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress
from tests.system.faults.liar import KAD, MESSAGE_BYTES_MAX, REGISTRY_PORT, ROUTER_PORT, answers, silent


def protocols(plan: dict[str, Any]) -> tuple[str, str]:
    """The mesh's protocol, and the one that says that a peer understands claims."""
    kad = f"/speil/{plan['region']}/kad/1.0.0" if plan["region"] else KAD
    return kad, kad.replace("/kad/", "/kad-claims/")


def identity_for(plan: dict[str, Any]) -> Identity:
    """An identity that is closest to the key of the plan."""
    key = place(content_key(plan["umpire_of"])) if plan["umpire_of"] else 0
    nodes = [place(PeerId.parse(node["peer_id"]).multihash) ^ key for node in plan["nodes"]]
    while True:
        identity = Identity.generate()
        if not plan["umpire_of"] or place(identity.peer_id.multihash) ^ key < min(nodes):
            return identity


class Claimer:
    """What it answers in the mesh."""

    def __init__(self, local: PeerInfo) -> None:
        self._local, self._offset = local, 0

    async def serve(self, stream: Stream) -> None:
        """Answer questions of nodes."""
        while data := await stream.read_message(MESSAGE_BYTES_MAX):
            asked = Message.decode(data)
            if asked.type is MessageType.ADD_PROVIDER:
                continue
            claim = b""
            if asked.claim:
                match decode(asked.claim):
                    case Ask():
                        claim = encode(Follow(self._local))
                    case AskStatus():
                        self._offset += 1 << 20
                        claim = encode(Status(Phase.FETCHING, self._offset))
            await stream.write_message(Message(asked.type, asked.key, claim=claim).encode())


async def claim_all(host: Host, plan: dict[str, Any]) -> str:
    """Ask every node for every key; what came of it."""
    granted = met = 0
    for node in plan["nodes"]:
        target = Multiaddr.parse(f"/ip4/{node['address']}/tcp/{ROUTER_PORT}")
        try:
            connection = await host.connect(target.with_peer_id(PeerId.parse(node["peer_id"])))
            stream = await connection.open_stream(protocols(plan)[0])
            for key in plan["keys"]:
                ask = Message(MessageType.GET_PROVIDERS, content_key(key), claim=encode(Ask()))
                await stream.write_message(ask.encode())
                said = await stream.read_message(MESSAGE_BYTES_MAX)
                claim = Message.decode(said).claim if said else b""
                granted += bool(claim) and isinstance(decode(claim), Fetch)
            met += 1
        except (Libp2pError, OSError):
            continue
    return f"announced {granted}" if met else "refused"


async def main() -> None:
    """See the module."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    if plan["answers"] == "silence":
        await asyncio.start_server(silent, "0.0.0.0", REGISTRY_PORT)
    else:
        runner = web.AppRunner(answers(plan), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", REGISTRY_PORT).start()
    address = Multiaddr.parse(f"/ip4/{plan['announce'][0]}/tcp/{ROUTER_PORT}")
    async with contextlib.AsyncExitStack() as stack:
        host = Host(
            identity_for(plan),
            ListenAddress("", ROUTER_PORT),
            agent_version="speil/0.1.0",
            metrics=Metrics(),
            announce=(address,),
        )
        claimer = Claimer(PeerInfo(host.local.peer_id, (address,)))
        for protocol in protocols(plan):
            host.set_handler(protocol, claimer.serve)
        await stack.enter_async_context(host)
        print(await claim_all(host, plan), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
