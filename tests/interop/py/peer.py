"""A py-libp2p host with its Kademlia DHT, driven by JSON lines like the Go peer (tests/interop/peers.py)."""

from __future__ import annotations

import json
import sys

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.utils.varint import decode_varint_from_bytes, encode_uvarint

KAD = TProtocol("/spegel/kad/1.0.0")
ECHO = TProtocol("/speil-test/echo/1.0.0")
IDENTIFY = TProtocol("/ipfs/id/1.0.0")
PING = TProtocol("/ipfs/ping/1.0.0")
MESSAGE_BYTES_MAX = 1 << 20


async def read_message(stream) -> bytes:
    head = b""
    while not head or head[-1] & 0x80:
        head += await stream.read(1)
    left = decode_varint_from_bytes(head)
    data = b""
    while len(data) < left:
        data += await stream.read(left - len(data))
    return data


async def rpc(host, peer: ID, message: bytes, answers: bool) -> bytes:
    stream = await host.new_stream(peer, [KAD])
    await stream.write(encode_uvarint(len(message)) + message)
    data = await read_message(stream) if answers else b""
    await stream.close()
    return data


async def run(host, request: dict) -> dict:
    peer = ID.from_base58(request["peer"]) if request.get("peer") else None
    match request["cmd"]:
        case "connect":
            await host.connect(info_from_p2p_addr(multiaddr.Multiaddr(request["addr"])))
            return {}
        case "connected":
            return {"peers": [str(one) for one in host.get_network().connections]}
        case "identify":
            stream = await host.new_stream(peer, [IDENTIFY])
            data = await read_message(stream)
            await stream.close()
            return {"message": data.hex()}
        case "ping":
            stream = await host.new_stream(peer, [PING])
            await stream.write(bytes(32))
            data = await stream.read(32)
            await stream.reset()
            return {"same": data == bytes(32)}
        case "echo":
            stream = await host.new_stream(peer, [ECHO])
            sent, back = bytes(range(256)) * (request["size"] // 256), b""

            async def write() -> None:
                await stream.write(sent)
                await stream.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                while len(back) < len(sent):
                    back += await stream.read(65536)
            return {"size": len(back), "same": back == sent}
        case "rpc":
            data = await rpc(host, peer, bytes.fromhex(request["message"]), request.get("answers", True))
            return {"message": data.hex()}
    raise ValueError(f"unknown command {request['cmd']}")


async def main() -> None:
    host = new_host(key_pair=create_new_key_pair())

    async def echo(stream) -> None:
        while data := await stream.read(65536):
            await stream.write(data)
        await stream.close()

    asked: list[str] = []

    async def kad(stream) -> None:
        """Answers every DHT request with the same message: as a node without peers answers PING and FIND_NODE."""
        while True:
            data = await read_message(stream)
            asked.append(data.hex())
            await stream.write(encode_uvarint(len(data)) + data)

    host.set_stream_handler(ECHO, echo)
    host.set_stream_handler(KAD, kad)
    async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        addrs = [
            str(address.decapsulate_code(421)) if "/p2p/" in str(address) else str(address)
            for address in host.get_addrs()
        ]
        print(json.dumps({"ok": True, "id": str(host.get_id()), "addrs": addrs}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            request = json.loads(line)
            try:
                answer = {"asked": asked} if request["cmd"] == "asked" else await run(host, request)
                print(json.dumps({"ok": True, **answer}), flush=True)
            except Exception as error:
                print(json.dumps({"ok": False, "error": repr(error)}), flush=True)


trio.run(main)
