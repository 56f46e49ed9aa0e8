"""speil and py-libp2p (in an environment of its own), both directions."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import pytest

from speil.kad.message import Message, MessageType
from speil.libp2p import identify
from speil.libp2p._pb import identify_pb2
from speil.libp2p.identity import Identity
from speil.libp2p.noise import Handshake
from speil.libp2p.ping import PROTOCOL as PING_PROTOCOL
from speil.libp2p.stream import Stream
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.testing.eventually import eventually
from tests.interop.peers import PeerProgram, peer_program
from tests.requirements import ROOT
from tests.shell.mesh import address, dht_node, new_host, providers

pytestmark = [pytest.mark.interop, pytest.mark.requires("py-libp2p")]
ECHO, KAD = "/speil-test/echo/1.0.0", "/spegel/kad/1.0.0"
DIGEST = "sha256:" + "ef" * 32


@pytest.fixture
async def py_peer() -> AsyncIterator[PeerProgram]:
    folder = ROOT / "tests" / "interop" / "py"
    async with peer_program(str(folder / ".venv" / "bin" / "python"), str(folder / "peer.py")) as program:
        yield program


def multiaddr(peer: PeerProgram) -> Multiaddr:
    return Multiaddr.parse(peer.address).with_peer_id(PeerId.parse(peer.id))


async def test_we_connect_to_it_identify_it_and_ping_it(py_peer: PeerProgram) -> None:
    async with new_host() as host:
        connection = await host.connect(multiaddr(py_peer))
        assert str(connection.peer_id) == py_peer.id
        assert {ECHO, KAD, PING_PROTOCOL} <= connection.peer.protocols
        async with await connection.open_stream(PING_PROTOCOL) as stream:
            await stream.write(bytes(32))
            assert await stream.read_exactly(32) == bytes(32)
        async with await connection.open_stream(ECHO) as stream:
            await stream.write(b"x" * 100_000)
            assert await stream.read_exactly(100_000) == b"x" * 100_000


async def test_it_connects_to_us_identifies_and_pings_us(py_peer: PeerProgram) -> None:
    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)
        stream.close_write()

    async with new_host() as host:
        host.set_handler(ECHO, echo)
        await py_peer.ask("connect", addr=str(address(host.local)))
        us = str(host.local.peer_id)
        said = await py_peer.ask("identify", peer=us)
        message = identify_pb2.Identify.FromString(bytes.fromhex(said["message"]))
        assert identify.PROTOCOL in message.protocols
        assert message.listen_addrs == [one.encode() for one in host.local.addresses]
        assert (await py_peer.ask("ping", peer=us))["same"]
        assert (await py_peer.ask("echo", peer=us, size=1_000_000))["same"]


async def test_our_dht_answers_its_requests(py_peer: PeerProgram) -> None:
    async with dht_node() as router, dht_node(address(router.local)) as other:
        await eventually(lambda: len(router.peers()) == 1, what="our two nodes know each other")
        await other.provide([DIGEST])
        await eventually(lambda: _has(router, other), what="the record is there")
        await py_peer.ask("connect", addr=str(address(router.local)))

        async def ask(message: Message, *, answers: bool = True) -> Message | None:
            said = await py_peer.ask(
                "rpc", peer=str(router.local.peer_id), message=message.encode().hex(), answers=answers
            )
            return Message.decode(bytes.fromhex(said["message"])) if answers else None

        assert await ask(Message(MessageType.PING)) == Message(MessageType.PING)
        closer = await ask(Message(MessageType.FIND_NODE, other.local.peer_id.multihash))
        assert closer is not None
        assert other.local.peer_id in {peer.peer_id for peer in closer.closer_peers}
        found = await ask(Message(MessageType.GET_PROVIDERS, content_key(DIGEST)))
        assert found is not None
        assert {peer.peer_id for peer in found.provider_peers} == {other.local.peer_id}
        own = PeerInfo(PeerId.parse(py_peer.id), (Multiaddr.parse(py_peer.address),))
        await ask(Message(MessageType.ADD_PROVIDER, content_key("py"), provider_peers=(own,)), answers=False)

        async def recorded() -> bool:
            return py_peer.id in await providers(other, "py")

        await eventually(recorded, what="its record is found by a third node")


async def test_it_answers_our_dhts_requests(py_peer: PeerProgram) -> None:
    async with dht_node(multiaddr(py_peer)) as router:
        await eventually(lambda: len(router.peers()) == 1, what="it is in our routing table")
        await providers(router, DIGEST)

        async def asked_for_both() -> bool:
            texts = (await py_peer.ask("asked"))["asked"]
            types = {Message.decode(bytes.fromhex(text)).type for text in texts}
            return {MessageType.FIND_NODE, MessageType.GET_PROVIDERS} <= types

        await eventually(asked_for_both, what="it is asked for peers and for providers")


async def _has(router: object, holder: object) -> bool:
    found = await providers(router, DIGEST)  # type: ignore[arg-type]
    return str(holder.local.peer_id) in found  # type: ignore[attr-defined]


@pytest.mark.parametrize("role", ["initiator", "responder"])
async def test_a_handshake_with_a_pre_shared_key_is_noise_xxpsk3(role: str) -> None:
    """The other side is an independent implementation; on ours an older key is in force too."""
    folder, psk = ROOT / "tests" / "interop" / "py", b"k" * 32
    ours = Handshake(Identity.generate(), (), (psk,) if role == "responder" else (b"o" * 32, psk))
    theirs = Handshake(identity := Identity.generate(), (), (psk,))
    arguments = [psk.hex(), theirs._static.private_bytes_raw().hex(), theirs._payload.hex()]
    process = await asyncio.create_subprocess_exec(
        folder / ".venv" / "bin" / "python", folder / "noise_psk.py", role, *arguments, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    out, incoming = process.stdin, process.stdout

    def send(message: bytes) -> None:
        out.write(message.hex().encode() + b"\n")

    async def receive() -> bytes:
        return bytes.fromhex((await incoming.readline()).decode())

    async with asyncio.timeout(20):
        if role == "responder":
            send(ours.write_message_1())
            remote = ours.read_message_2(await receive())
            send(ours.write_message_3())
        else:
            ours.read_message_1(await receive())
            send(ours.write_message_2())
            remote = ours.read_message_3(await receive())
        assert remote.peer_id == identity.peer_id
        sending, receiving = ours.split(initiator=role == "responder")
        send(sending.encrypt(b"both directions"))
        assert receiving.decrypt(await receive()) == b"both directions"
        out.close()
        assert await process.wait() == 0
