"""Attacks by members of the mesh: what their messages, streams, answers and records cost a node.

The attackers are libp2p hosts with real handshakes on addresses of their own, 127.32.9.n.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from bench.hostile_http import World
from speil.kad.key import Key
from speil.kad.message import Message, MessageType
from speil.libp2p import multistream
from speil.libp2p.connection import Connection
from speil.libp2p.error import Libp2pError, PeerUnreachableError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.libp2p.transport import TcpConnection, TcpTransport
from speil.multiformats import varint
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress

KAD, PLACES = "/spegel/kad/1.0.0", "/spegel/kad-places/1.0.0"
MESSAGE_BYTES_MAX = 4 << 20
LIARS = 6
_LOST = (Libp2pError, OSError, TimeoutError, asyncio.IncompleteReadError)
Answer = Callable[[Message], bytes]


def _echo(question: Message) -> bytes:
    return Message(question.type, question.key).encode()


class _From(TcpTransport):
    """Dials from an address of its own."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    async def dial(self, address: Multiaddr) -> TcpConnection:
        """See Transport."""
        tcp = address.tcp
        if tcp is None:
            raise PeerUnreachableError(f"{address} is not TCP")
        try:
            made = asyncio.get_running_loop().create_connection(TcpConnection, *tcp, local_addr=(self._source, 0))
            return (await made)[1]
        except OSError as error:
            raise PeerUnreachableError(f"{address}: {error}") from error


class Member:
    """A host that has joined, and the node as its peer."""

    def __init__(self, host: Host, node: PeerInfo) -> None:
        self.host, self.node = host, node

    @property
    def told(self) -> PeerInfo:
        """Itself, where its registry is said to be."""
        return self.host.local

    async def send(self, message: bytes, *, protocol: str = KAD) -> None:
        """One message on a stream of its own; whether it is answered is not waited for."""
        stream = await self.host.open_stream(self.node, protocol)
        await stream.write_message(message)
        stream.close_write()

    async def announce(self, key: str) -> None:
        """Say that it has a key."""
        await self.send(Message(MessageType.ADD_PROVIDER, Key.of(key).multihash, provider_peers=(self.told,)).encode())


@asynccontextmanager
async def member(world: World, number: int = 9, answer: Answer = _echo) -> AsyncIterator[Member]:
    """A member at 127.32.9.`number` that answers the node's questions with `answer`."""
    source = f"127.32.9.{number}"
    host = Host(
        Identity.generate(), ListenAddress(source, world.router), agent_version="hostile", metrics=Metrics(),
        transport=_From(source),
    )  # fmt: skip

    async def serve(stream: Stream) -> None:
        while (data := await stream.read_message(MESSAGE_BYTES_MAX)) is not None:
            await stream.write_message(answer(Message.decode(data)))

    host.set_handler(KAD, serve)
    host.set_handler(PLACES, serve)
    async with host:
        connection = await host.connect(Multiaddr.of_tcp(world.host, world.router))
        yield Member(host, PeerInfo(connection.peer_id, (Multiaddr.of_tcp(world.host, world.router),)))


async def _again(world: World, step: Callable[[], Awaitable[None]], *, pause_seconds: float = 0.0) -> None:
    """Take a step over and over; one that the node has ended costs a moment."""
    while world.goes_on:
        world.steps += 1  # the node may have ended it: that is one as well
        try:
            async with asyncio.timeout(5):
                await step()
        except _LOST:
            await asyncio.sleep(0.1)
        await asyncio.sleep(pause_seconds)


async def zero_messages(world: World) -> None:
    """Streams of 256 KiB of DHT messages without a byte, four at a time."""
    async with member(world) as one:

        async def step() -> None:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    stream = await one.host.open_stream(one.node, KAD)
                    stack.callback(stream.reset)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await stream.write(bytes(256 * 1024 - 100))

        await _again(world, step)


async def copies(world: World) -> None:
    """A hundred copies of one provider, with 4,096 places."""
    async with member(world) as one:
        places = tuple(random.getrandbits(64) for _ in range(4096))
        providers = (one.told,) * 100
        message = Message(MessageType.ADD_PROVIDER, Key.of("x").multihash, provider_peers=providers, places=places)
        await _again(world, lambda: one.send(message.encode(), protocol=PLACES), pause_seconds=0.01)


async def question(world: World) -> None:
    """A question with 4,096 places, after records for them."""
    async with member(world) as one:
        places = tuple(random.getrandbits(64) for _ in range(4096))
        key = Key.of("x").multihash
        await one.send(
            Message(MessageType.ADD_PROVIDER, key, provider_peers=(one.told,), places=places).encode(), protocol=PLACES
        )
        asked = Message(MessageType.GET_PROVIDERS, key, places=places).encode()
        await _again(world, lambda: one.send(asked, protocol=PLACES), pause_seconds=0.01)


async def empty_peers(world: World) -> None:
    """4 MiB of empty peers: as an answer to each of the node's questions, and unasked."""
    empty = b"\x08\x04" + b"\x42\x00" * ((MESSAGE_BYTES_MAX - 16) // 2)

    def answer(question: Message) -> bytes:
        return _echo(question) if question.type is MessageType.PING else empty

    async with member(world, answer=answer) as one:
        keys = itertools.cycle(world.keys)

        async def step() -> None:
            await one.announce(next(keys))  # so that it stays among the peers that are asked
            await one.send(empty)

        await _again(world, step, pause_seconds=0.05)


async def stream_churn(world: World) -> None:
    """Streams opened and reset before identify is answered, two hundred at a time."""
    opening = multistream.encode(multistream.HEADER, KAD)
    loop = asyncio.get_running_loop()

    async def step() -> None:
        raw = await _From("127.32.9.9").dial(Multiaddr.of_tcp(world.host, world.router))
        connection = Connection(raw, inbound=False, on_stream=lambda connection, stream: None, now=loop.time)
        await connection.secure(Identity.generate(), ())
        connection.start()
        try:
            while world.goes_on:
                opened = [connection._yamux.open(opening) for _ in range(200)]
                connection._flush()
                await connection._channel.drain()
                await asyncio.sleep(0.01)
                for number in opened:
                    connection._yamux.reset(number)
                connection._flush()
                world.steps += 1
        finally:
            connection.abort()

    await _again(world, step)


async def unfinished(world: World) -> None:
    """A hundred streams, each with a message of 4 MiB whose last bytes never come."""
    async with member(world) as one:
        body = varint.encode(MESSAGE_BYTES_MAX) + bytes(MESSAGE_BYTES_MAX - 4096)
        slots = asyncio.Semaphore(50)

        async def hold() -> None:
            async with slots:
                stream = await one.host.open_stream(one.node, KAD)
                try:
                    async with asyncio.timeout(5):
                        await stream.write(body)
                        await asyncio.sleep(4)
                finally:
                    stream.reset()

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(_again(world, hold))


async def records(world: World) -> None:
    """Three identities whose announcements would fill the record store."""
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(world, number)) for number in (7, 8, 9)]
        async with asyncio.TaskGroup() as group:
            for one in members:

                async def step(one: Member = one) -> None:
                    places = tuple(random.getrandbits(64) for _ in range(4096))
                    key = Key.of(str(random.getrandbits(64))).multihash
                    message = Message(MessageType.ADD_PROVIDER, key, provider_peers=(one.told,), places=places)
                    await one.send(message.encode(), protocol=PLACES)

                group.create_task(_again(world, step, pause_seconds=0.05))


async def invented(world: World) -> None:
    """Answers that name peers at addresses nobody has, and requests that make the node look for them."""

    def strangers() -> tuple[PeerInfo, ...]:
        hosts = (
            "169.254.169.254",
            *(f"127.32.{random.randrange(10, 250)}.{random.randrange(1, 250)}" for _ in range(19)),
        )
        return tuple(
            PeerInfo(_peer_id(), tuple(Multiaddr.of_tcp(host, port) for port in (world.router, 22, 80)))
            for host in hosts
        )

    def answer(question: Message) -> bytes:
        if question.type is MessageType.PING:
            return _echo(question)
        return Message(question.type, question.key, closer_peers=strangers(), provider_peers=strangers()).encode()

    async with member(world, answer=answer):
        await _ask_for_what_nobody_has(world)


def _peer_id() -> PeerId:
    return PeerId.of_public_key(random.randbytes(32))


async def _ask_for_what_nobody_has(world: World) -> None:
    async def step() -> None:
        await _get(world, "sha256:" + random.randbytes(32).hex(), "blobs")

    await _again(world, step, pause_seconds=0.05)


async def _get(world: World, digest: str, kind: str) -> None:
    reader, writer = await asyncio.open_connection(world.host, world.registry, local_addr=("127.32.9.9", 0))
    try:
        path = f"/v2/x/y/{kind}/{digest}?ns=registry.bench"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()


async def layers(world: World) -> None:
    """A manifest of 4 MiB of `{}` layers, right by its digest, from a peer; asked for again and again."""
    sizes = itertools.count()

    def manifest() -> bytes:
        document = json.dumps({"schemaVersion": 2, "annotations": {"n": str(next(sizes))}, "layers": []}).encode()
        room = (4 << 20) - len(document) - 16
        return document[:-2] + b",".join([b"{}"] * (room // 3)) + b"]}"

    bodies: dict[str, bytes] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*_LOST):
            head = await reader.readuntil(b"\r\n\r\n")
            digest = next((one for one in bodies if one.encode() in head), "")
            body = bodies.get(digest, b"")
            kind = "application/vnd.oci.image.manifest.v1+json"
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: {kind}\r\n"
                f"Docker-Content-Digest: {digest}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.32.9.9", world.registry), member(world) as one:

        async def step() -> None:
            body = manifest()
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            bodies.clear()
            bodies[digest] = body
            await one.announce(digest)
            await asyncio.sleep(0.1)
            await _get(world, digest, "manifests")

        await _again(world, step, pause_seconds=0.2)


_HEADS = (
    b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 5000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"HTTP/1.1 416 No\r\nContent-Range: bytes */1\r\nContent-Length: 0\r\n\r\n",
)


async def liars(world: World) -> None:
    """Six peers that announce what the honest one has, and answer with heads that are none."""
    async with AsyncExitStack() as stack:
        members = []
        for number in range(LIARS):

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes = _HEADS[number % len(_HEADS)]
            ) -> None:
                with contextlib.suppress(*_LOST):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(head)
                    await writer.drain()
                writer.close()

            address = f"127.32.9.{20 + number}"
            await stack.enter_async_context(await asyncio.start_server(serve, address, world.registry))
            members.append(await stack.enter_async_context(member(world, 20 + number)))

        async def announce(one: Member) -> None:
            for key in world.keys:
                await one.announce(key)

        async with asyncio.TaskGroup() as group:
            for one in members:
                group.create_task(_again(world, lambda one=one: announce(one), pause_seconds=1))  # type: ignore[misc]


ATTACKS: dict[str, Callable[[World], Awaitable[None]]] = {
    "zero-messages": zero_messages,
    "copies": copies,
    "question": question,
    "empty-peers": empty_peers,
    "stream-churn": stream_churn,
    "unfinished": unfinished,
    "layers": layers,
    "records": records,
    "liars": liars,
    "invented": invented,
}
