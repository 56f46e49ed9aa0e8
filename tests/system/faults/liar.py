"""Peers that announce what they do not have.

    python -m tests.system.faults.liar PLAN

PLAN is a JSON file: `nodes` that are told (address, libp2p id), the `keys` that are announced, an identity for each of
`announce` (the address that its records name), and how requests to this host are answered:

    nothing   nobody listens
    404       "I do not have it"
    silence   the connection is taken and nothing is said
    garbage   a head that is right in all, and random bytes
    large garbage   the same for what is larger than a node verifies; the rest is right, from the folder `content`

It says "announced" when the nodes have taken the records, and goes on answering until it is ended. An identity stays in
the mesh for as long, or else its records would soon count for little; with `nothing` it is gone, as a dead node is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from speil.fetch.settings import FetchSettings
from speil.kad.message import Message, MessageType
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.observe.metrics import Metrics
from speil.oci import byte_range
from speil.setting import ListenAddress

REGISTRY_PORT, ROUTER_PORT = 5000, 5001
KAD = "/spegel/kad/1.0.0"
MESSAGE_BYTES_MAX = 1 << 20


async def know_nobody(stream: Stream) -> None:
    """A member of the mesh that answers what it is asked, with nothing."""
    while data := await stream.read_message(MESSAGE_BYTES_MAX):
        asked = Message.decode(data)
        if asked.type is not MessageType.ADD_PROVIDER:
            await stream.write_message(Message(asked.type, asked.key).encode())


@contextlib.asynccontextmanager
async def announced(plan: dict[str, Any], address: str) -> AsyncIterator[None]:
    """One identity announces every key to every node, and is in the mesh until this ends."""
    host = Host(
        Identity.generate(),
        ListenAddress("", ROUTER_PORT),
        agent_version="speil/0.1.0",
        metrics=Metrics(),
        announce=(Multiaddr.parse(f"/ip4/{address}/tcp/{ROUTER_PORT}"),),
    )
    async with host:
        host.set_handler(KAD, know_nobody)
        for node in plan["nodes"]:
            target = Multiaddr.parse(f"/ip4/{node['address']}/tcp/{ROUTER_PORT}")
            connection = await host.connect(target.with_peer_id(PeerId.parse(node["peer_id"])))
            stream = await connection.open_stream(KAD)
            for key in plan["keys"]:
                provide = Message(MessageType.ADD_PROVIDER, content_key(key), (), (host.local,))
                await stream.write_message(provide.encode())
            # an answer to what was said last: all before it has been taken
            await stream.write_message(Message(MessageType.PING).encode())
            await stream.read_message(MESSAGE_BYTES_MAX)
        yield


def answers(plan: dict[str, Any]) -> web.Application:
    """The registry that lies."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if plan["answers"] == "404":
            return web.Response(status=404)
        digest = request.path.rpartition("/")[2]
        size, kind = plan["blobs"][digest]
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest}
        if plan["answers"] == "large garbage" and size <= FetchSettings().verify_bytes_max:
            data = (Path(plan["content"]) / digest.partition(":")[2]).read_bytes()
            return web.Response(body=data, headers=headers)
        part = byte_range.parse(request.headers.get("Range"), size)
        if part is None:
            return web.Response(body=os.urandom(size), headers=headers)
        headers["Content-Range"] = part.content_range
        return web.Response(status=206, body=os.urandom(part.length), headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what is said, and say nothing."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


async def main() -> None:
    """See the module."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    if plan["answers"] == "silence":
        await asyncio.start_server(silent, "0.0.0.0", REGISTRY_PORT)
    elif plan["answers"] != "nothing":
        runner = web.AppRunner(answers(plan), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", REGISTRY_PORT).start()
    async with contextlib.AsyncExitStack() as members:
        for address in plan["announce"]:
            if plan["answers"] == "nothing":
                async with announced(plan, address):
                    pass
            else:
                await members.enter_async_context(announced(plan, address))
        print("announced", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
