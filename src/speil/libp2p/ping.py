"""ping (libp2p ping spec): every 32 bytes are sent back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.stream import Stream, StreamHandler

PROTOCOL = "/ipfs/ping/1.0.0"
BYTES = 32


def handler(wait_turn: Callable[[RemotePeer], Awaitable[None]]) -> StreamHandler:
    """The handler of PROTOCOL. It awaits `wait_turn` before each answer."""

    async def answer(stream: Stream) -> None:
        while data := await stream.read(BYTES):
            await wait_turn(stream.peer)
            await stream.write(data)
        stream.close_write()

    return answer
