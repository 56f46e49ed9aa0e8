"""Ports that speak HTTP under load from strangers: who has a place, who makes way, what is closed, what is logged."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from speil.border.http import NODE_TOKEN_HEADER
from speil.border.secret_file import SecretFile
from speil.http1 import connection as connection_module
from speil.http1 import places as places_module
from speil.http1.message import Request
from speil.http1.own_addresses import (
    PROVED_MAX,
    PROVED_SECONDS,
    READ_AGAIN_SECONDS,
    READ_FAILED_SECONDS,
    OwnAddresses,
    default_gateways,
)
from speil.http1.places import Bounds, Place, Places, Refusal
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.mirror import open_requests as open_requests_module
from speil.mirror.metrics_port import CONNECTIONS as DEBUG_CONNECTIONS
from speil.mirror.metrics_port import PAGES_BURST, MetricsServer
from speil.mirror.server import CONNECTIONS
from speil.observe import logs
from speil.observe.line_limit import LINES_PER_MINUTE_MAX
from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.region.policy import Policy
from speil.region.token import sign_node
from speil.routing.memory import MemoryMesh
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.samples import sample
from speil.wire import progress as progress_module
from speil.wire.progress import Progress
from tests.shell.mirrors import Mirror, mirror
from tests.shell.nodes import RunningNode, free_ports, running_node, write_layout

STRANGER = "127.0.9.9"  # on loopback, but no address of an interface
BIG = Random(1).randbytes(8 << 20)
DIGEST = Digest.of(BIG)
PING = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
BLOB = f"GET /v2/a/blobs/{DIGEST}?ns=reg.test HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes = PING) -> int:
        """The status of the next answer, without its body."""
        self.writer.write(request)
        async with asyncio.timeout(30):
            return int((await self.reader.readuntil(b"\r\n\r\n")).split(b" ")[1])

    async def is_closed(self) -> bool:
        """Whether the other side has ended it; takes what has come."""
        try:
            async with asyncio.timeout(0.01):
                while await self.reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


@asynccontextmanager
async def clients() -> AsyncIterator[Connect]:
    """Opens connections; all are ended."""
    connect = Connect()
    try:
        yield connect
    finally:
        for one in connect.open:
            one.writer.transport.abort()


class Connect:
    def __init__(self) -> None:
        self.open: list[Client] = []

    async def __call__(self, host: str, port: int, source: str = "127.0.0.1") -> Client:
        one = Client(*await asyncio.open_connection(host, port, local_addr=(source, 0), limit=1 << 12))
        self.open.append(one)
        return one


@pytest.fixture
async def one() -> AsyncIterator[Mirror]:
    async with mirror(MemoryMesh()) as found:
        found.store.put(BIG)
        yield found


def refused(target: Mirror, reason: Refusal) -> float:
    return target.sample("speil_http_connections_refused_total", port="registry", reason=reason)


# --- places, as they are counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_and_goes_the_bounds_hold_and_this_node_gets_in(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_module, "OPENED_BURST", 1e9)
    rng, bounds = Random(seed), Bounds(total=20, own=5, per_share=6)
    places, here = Places(bounds), list[Place]()
    for _ in range(2000):
        step = rng.random()
        if step < 0.5 or not here:
            is_own = rng.random() < 0.1
            share = f"own{rng.randrange(2)}" if is_own else f"share{rng.randrange(rng.choice((1, 3, 12)))}"
            held = Counter(place.share for place in here)
            own = sum(place.is_own for place in here)
            idle_of_more = any(held[place.share] > held[share] and place in idle(places) for place in here)
            found, leaver = places.come("h", share, 0.0, lambda: None, is_own=is_own)
            if leaver is not None:
                here.remove(leaver)
                assert not leaver.is_own or is_own or own > bounds.own, "a stranger takes nothing that is kept"
            if isinstance(found, Place):
                here.append(found)
            else:
                assert not is_own or own >= bounds.own, "this node's own always get what is kept for them"
                if held[share] < bounds.per_share:
                    assert is_own or not idle_of_more, "whoever has less than another that only waits gets in"
        elif step < 0.65:
            places.work(rng.choice(here))
        elif step < 0.8:
            places.rest(rng.choice(here))
        else:
            place = here.pop(rng.randrange(len(here)))
            places.leave(place)
            places.leave(place)  # a second call
        held = Counter(place.share for place in here)
        assert places.count == len(here) <= bounds.total
        assert sum(not place.is_own for place in here) <= bounds.total - bounds.own
        assert all(count <= bounds.per_share for share, count in held.items() if not share.startswith("own"))
    for place in here:
        places.leave(place)
    assert (places.count, places._strangers, places._idle, +places._held) == (0, 0, {}, Counter())


def idle(places: Places) -> set[Place]:
    return {place for of_share in places._idle.values() for place in of_share if not place.is_own}


def test_an_address_that_opens_and_closes_has_a_rate_and_this_node_has_none() -> None:
    places = Places(CONNECTIONS)

    def came(share: str, now: float, *, is_own: bool = False) -> bool:
        found, _ = places.come("h", share, now, lambda: None, is_own=is_own)
        if isinstance(found, Refusal):
            assert found is Refusal.FAST
            return False
        places.leave(found)
        return True

    assert sum(came("a", 0.0) for _ in range(5000)) == places_module.OPENED_BURST
    assert came("b", 0.0)
    assert all(came("me", 0.0, is_own=True) for _ in range(5000))
    assert came("a", 1.0)


@pytest.mark.parametrize(("descriptors", "total"), [(1 << 20, 2048), (256, 64), (0, 8)])
def test_few_descriptors_are_few_places(descriptors: int, total: int) -> None:
    found = CONNECTIONS.within(descriptors // 4)
    assert found.total == total
    assert 0 < found.own < found.total
    assert 0 < found.per_share < found.total


# --- who is this node's own ------------------------------------------------------------------------------------


def own(
    node_ip: str = "", *, here: Iterable[str] = ("10.1.2.3",), gateways: Iterable[str] = ("10.1.2.1",)
) -> OwnAddresses:
    return OwnAddresses(node_ip, clock=lambda: 0.0, interfaces=lambda: here, gateways=lambda: gateways)


@pytest.mark.parametrize(
    ("addresses", "host", "is_own"),
    [
        (own(), "127.0.0.1", True),
        (own(), "::1", True),
        (own(), "::ffff:127.0.0.1", True),
        (own(), "127.0.9.9", False),
        (own(), "10.1.2.3", True),
        (own(), "10.1.2.4", False),
        (own(), "10.1.2.1", False),  # on the node's own network the gateway is a router
        (own("10.1.2.3"), "10.1.2.1", False),
        (own("192.168.7.7"), "10.1.2.1", True),  # in a pod it is the node's bridge
        (own("192.168.7.7"), "192.168.7.7", True),
        (own("192.168.7.7"), "192.168.7.8", False),
        (own("no address"), "192.168.7.8", False),
        (own(), "a name", False),
        (own(), "", False),
    ],
)
def test_own_addresses(addresses: OwnAddresses, host: str, is_own: bool) -> None:
    assert addresses.cover(host) is is_own


def test_whoever_reaches_an_address_from_itself_is_on_this_machine() -> None:
    assert own().cover("127.66.0.1", "127.66.0.1")
    assert not own().cover("127.66.0.2", "127.66.0.1")


def test_the_node_token_makes_an_address_ours_for_a_while() -> None:
    now = 0.0
    addresses = OwnAddresses(clock=lambda: now, interfaces=tuple, gateways=tuple)
    addresses.proved("10.7.7.7")
    assert addresses.cover("10.7.7.7")
    now = PROVED_SECONDS
    assert not addresses.cover("10.7.7.7")
    for number in range(1000):
        addresses.proved(f"10.8.{number >> 8}.{number & 255}")
    assert len(addresses._proved) == PROVED_MAX


def test_the_last_addresses_stay_while_no_descriptor_is_left() -> None:
    now, here, reads = 0.0, ["10.1.1.1"], 0

    def interfaces() -> list[str]:
        nonlocal reads
        reads += 1
        if not here:
            raise OSError(errno.EMFILE, "Too many open files")
        return here

    addresses = OwnAddresses(clock=lambda: now, interfaces=interfaces, gateways=tuple)
    assert addresses.cover("10.1.1.1")
    now, here = READ_AGAIN_SECONDS, []
    for _ in range(10):
        assert addresses.cover("10.1.1.1")
    assert reads == 2, "a read that failed is not repeated for each connection"
    now, here = now + READ_FAILED_SECONDS, ["10.1.1.2"]
    assert addresses.cover("10.1.1.2")
    assert not addresses.cover("10.1.1.1")


async def test_an_error_while_a_connection_gets_its_place_ends_that_connection_alone() -> None:
    class Broken(OwnAddresses):
        fails = True

        def cover(self, host: str, reached: str = "") -> bool:
            if self.fails:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().cover(host, reached)

    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(200)

    own_addresses = Broken()
    (port,) = free_ports("127.0.0.1", 1)
    server = GuardedServer("test", answer, Bounds(10, 2, 5), own=own_addresses)
    async with server.serve(ListenAddress("127.0.0.1", port)), clients() as connect:
        client = await connect("127.0.0.1", port)
        await eventually(client.is_closed, what="it is closed, not left open for ever")
        own_addresses.fails = False
        assert await (await connect("127.0.0.1", port)).ask() == 200
        assert server.places.count == 1


def test_gateways_are_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t010AF40A\t0003\neth0\t000AF40A\t00000000\t0001\n"
    )
    (tmp_path / "ipv6_route").write_text(
        f"{'0' * 32} 00 {'0' * 32} 00 fd0000000000000000000000000000ff 00000400 eth0\n"
        f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff lo\n"
    )
    assert default_gateways(tmp_path) == ["10.244.10.1", "fd00::ff"]
    assert default_gateways(tmp_path / "missing") == []


# --- connections -----------------------------------------------------------------------------------------------


async def test_one_address_that_opens_all_it_can_keeps_nobody_out(one: Mirror) -> None:
    async with clients() as connect:
        for _ in range(CONNECTIONS.per_share + 50):
            stranger = await connect(one.host, one.port, STRANGER)
            assert await stranger.ask() == 200, "its newest come in, its oldest make way"
        assert refused(one, Refusal.MADE_WAY) == 50
        closed = [one for one in connect.open if await one.is_closed()]
        assert len(closed) == 50
        for _ in range(20):
            assert await (await connect(one.host, one.port)).ask() == 200
            assert await (await connect(one.host, one.port, "127.0.8.1")).ask() == 200


async def test_a_full_port_closes_what_waits_and_takes_whoever_has_less() -> None:
    async def nothing(request: Request, reply: Reply) -> None:
        await reply.send(200)

    (port,) = free_ports("127.0.0.1", 1)
    counted: Counter[str] = Counter()
    server = GuardedServer(
        "test",
        nothing,
        Bounds(total=30, own=5, per_share=20),
        count_refused=lambda reason: counted.update([reason]),
    )
    async with server.serve(ListenAddress("127.0.0.1", port)), clients() as connect:
        # 25 places for strangers, who are counted by their /24
        for source in ("127.0.9.9",) * 20 + ("127.0.8.8",) * 5 + ("127.0.7.7",) * 2:
            assert await (await connect("127.0.0.1", port, source)).ask() == 200
        assert counted == {Refusal.MADE_WAY: 2}
        assert [await one.is_closed() for one in connect.open[:3]] == [True, True, False], "of whoever has most"
        for _ in range(10):
            assert await (await connect("127.0.0.1", port)).ask() == 200
        assert server.places.count == 30


async def test_a_head_has_its_time_from_its_first_byte_on_and_the_second_one_too(
    one: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS_MAX", 0.3)
    async with clients() as connect:
        silent, slow, second, patient = [await connect(one.host, one.port) for _ in range(4)]
        slow.writer.write(b"GET /v2/ HTTP/1.1\r\nX")
        assert await second.ask() == 200
        second.writer.write(b"GET /v2/ HTTP/1.1\r\nX")
        assert await patient.ask() == 200
        for waiting in (silent, slow, second):

            async def is_closed(waiting: Client = waiting) -> bool:
                if waiting is not silent and not waiting.writer.is_closing():
                    waiting.writer.write(b"a")  # it drips: that buys no time
                return await waiting.is_closed()

            await eventually(is_closed, what="it is closed")
        assert await patient.ask() == 200, "who sends nothing between requests is left its connection"
        assert refused(one, Refusal.NO_HEAD) == 3


async def test_requests_in_a_row_whose_answers_are_not_taken_are_not_answered_on_and_on(
    one: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "KEEPALIVE_SECONDS", 0.2)
    async with clients() as connect:
        stranger = await connect(one.host, one.port, STRANGER)
        manifest = json.dumps({"schemaVersion": 2, "layers": [], "annotations": {"x": "y" * 60_000}}).encode()
        one.store.put(manifest)
        stranger.writer.write(f"GET /v2/a/manifests/{Digest.of(manifest)} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 5000)

        def hung_up() -> bool:
            stranger.writer.write(b"G")  # it goes on asking; what it gets it does not read
            return stranger.writer.transport.is_closing()

        await eventually(hung_up, what="it is hung up on")
        answered = one.sample("http_request_duration_seconds_count")
        assert 1 < answered * len(manifest) < 32 << 20, "what the kernels take, not more"


async def test_a_body_that_does_not_end_is_read_for_a_moment(one: Mirror) -> None:
    async with clients() as connect:
        stranger = await connect(one.host, one.port, STRANGER)
        stranger.writer.write(b"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def goes_on() -> bool:
            if not stranger.writer.is_closing():
                stranger.writer.write(b"1\r\na\r\n")
            return await stranger.is_closed()

        await eventually(goes_on, what="it is closed")
        assert await (await connect(one.host, one.port)).ask() == 200


# --- requests --------------------------------------------------------------------------------------------------


async def test_bodies_that_nobody_takes_keep_no_place_from_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_requests_module, "REQUESTS_PER_SHARE_MAX", 4)
    async with mirror(MemoryMesh(), uploads_per_peer_max=2) as target, clients() as connect:
        target.store.put(BIG)

        async def statuses(source: str, count: int) -> Counter[int]:
            return Counter([await (await connect(target.host, target.port, source)).ask(BLOB) for _ in range(count)])

        assert await statuses(STRANGER, 10) == {200: 4, 404: 6}
        assert target.sample("speil_http_requests_refused_total", reason="address") == 6
        assert await statuses("127.0.8.8", 2) == {200: 2}
        assert await statuses("127.0.0.1", 10) == {200: 10}


async def test_containerd_at_whatever_address_is_this_nodes_own_by_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_requests_module, "REQUESTS_PER_SHARE_MAX", 1)
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef-a")
    secret = SecretFile(tmp_path / "secret", "a")
    token = sign_node(secret.secret.node_keys[0], "node-7")
    request = BLOB.replace(b"Host: x", f"Host: x\r\n{NODE_TOKEN_HEADER}: {token}".encode())
    policy = Policy("a", unsaid=False)
    async with (
        mirror(MemoryMesh(), policy=policy, secret=secret, uploads_per_peer_max=1) as target,
        clients() as connect,
    ):
        target.store.put(BIG)
        for _ in range(3):
            assert await (await connect(target.host, target.port, STRANGER)).ask(request) == 200
        forged = request.replace(token.encode(), sign_node(b"a guess", "node-7").encode())
        assert await (await connect(target.host, target.port, "127.0.8.8")).ask(forged) == 404
        assert target.sample("speil_http_requests_refused_total") == 0


async def test_a_client_that_takes_next_to_nothing_loses_its_place_and_this_node_keeps_its(
    one: Mirror, each_way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "WINDOW_SECONDS", 0.2)
    async with clients() as connect:
        mine, stranger = await connect(one.host, one.port), await connect(one.host, one.port, STRANGER)
        for client in (mine, stranger):
            assert await client.ask(BLOB) == 200
        await eventually(lambda: one.sample("speil_http_slow_bodies_total") == 1, what="the stranger's body is ended")
        await eventually(lambda: one.sample("http_requests_inflight") == 1, what="and its place is free")
        assert await mine.reader.readexactly(len(BIG)) == BIG


class SlowTransport:
    """What Progress asks of a transport; so many bytes have not been taken."""

    def __init__(self) -> None:
        self.unsent, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True


LEAST = progress_module.BYTES_MIN


@pytest.mark.parametrize(
    ("windows", "ends"),
    [
        (((LEAST * 9, 0), (LEAST * 9, 0), (LEAST * 9, 0)), False),  # it has taken all: the source is slow
        (((LEAST * 9, LEAST * 8), (LEAST * 9, LEAST * 7), (LEAST * 9, LEAST * 6)), False),  # it empties the kernel
        (((LEAST * 2, 10), (LEAST * 3, 10), (LEAST * 4, 10)), False),
        (((LEAST * 2, 10), (LEAST * 2 + 5, 10)), True),
        (((LEAST * 9, LEAST * 9),), True),  # it takes nothing
        (((LEAST * 9, LEAST * 8), (LEAST * 9, LEAST * 8 - 1)), True),
    ],
)
async def test_a_client_is_slow_by_what_it_has_taken(windows: tuple[tuple[int, int], ...], ends: bool) -> None:
    transport, state, told = SlowTransport(), [0], list[bool]()
    progress = Progress(transport, lambda: state[0], lambda: told.append(True))  # type: ignore[arg-type]
    for sent, unsent in windows:
        assert not told
        state[0], transport.unsent = sent, unsent
        progress._timer.cancel()
        progress._look()
    progress.close()
    assert (transport.aborted, told) == (ends, [True] * ends)


# --- log lines -------------------------------------------------------------------------------------------------

MALFORMED = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


async def test_what_is_no_request_costs_a_few_plain_lines(one: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    try:
        async with clients() as connect:
            for number in range(100):
                stranger = await connect(one.host, one.port, STRANGER)
                stranger.writer.write(MALFORMED[number % len(MALFORMED)])
                async with asyncio.timeout(30):
                    line = await stranger.reader.readuntil(b"\r\n")
                    assert b" 400 " in line or b" 431 " in line or number % len(MALFORMED) == 5
    finally:
        logs.configure()
    lines = stream.getvalue().splitlines()
    assert len(lines) <= LINES_PER_MINUTE_MAX, lines
    assert all("what a client sent is no HTTP request" in line for line in lines), lines
    assert "Traceback" not in stream.getvalue() + capsys.readouterr().err
    assert one.sample("speil_http_malformed_requests_total", port="registry") >= 80


async def test_what_strangers_ask_for_is_told_now_and_then_and_what_this_node_asks_each_time(one: Mirror) -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    try:
        async with clients() as connect:
            for source, asks in ((STRANGER, 50), ("127.0.0.1", 30)):
                client = await connect(one.host, one.port, source)
                for number in range(asks):
                    digest = Digest.of(bytes([number]))
                    head = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nUser-Agent: containerd/2\r\n\r\n"
                    assert await client.ask(head.encode()) == 404
    finally:
        logs.configure()
    assert stream.getvalue().count("asked by the node") == LINES_PER_MINUTE_MAX + 30


class _NoState:
    def document(self) -> dict[str, object]:
        return {}

    def brief(self) -> dict[str, object]:
        return {}


async def _page(request: Request, reply: Reply) -> None:
    await reply.send(200)


# --- the metrics port, and few descriptors ---------------------------------------------------------------------


async def test_idle_connections_to_the_metrics_port_are_few_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS_MAX", 1.0)
    (port,) = free_ports("127.0.0.1", 1)
    metrics = Metrics()
    server = MetricsServer(metrics, _NoState(), web=_page)
    async with server.serve(ListenAddress("127.0.0.1", port)), clients() as connect:
        for number in range(300):
            await connect("127.0.0.1", port, f"127.0.{2 + number % 100}.1")
            assert server.port.places.count <= DEBUG_CONNECTIONS.total
        for path, status in (("/metrics", 200), ("/debug/state", 200), ("/debug/web/", 200), ("/other", 404)):
            assert (
                await (await connect("127.0.0.1", port)).ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                == status
            )
        assert await (await connect("127.0.0.1", port)).ask(b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n") == 405
        await eventually(lambda: sample(metrics, "speil_http_connections_refused_total", reason="no_head") > 0)
        await eventually(lambda: server.port.places.count <= 5, what="what sent no head is closed")


async def test_pages_of_the_metrics_port_have_a_rate_for_strangers() -> None:
    (port,) = free_ports("127.0.0.1", 1)
    server, scrape = MetricsServer(Metrics(), _NoState(), web=_page), b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

    async def statuses(source: str, count: int) -> Counter[int]:
        return Counter([await (await connect("127.0.0.1", port, source)).ask(scrape) for _ in range(count)])

    async with server.serve(ListenAddress("127.0.0.1", port)), clients() as connect:
        found = await statuses(STRANGER, 200)
        assert found[200] >= PAGES_BURST
        assert found[429] > 0, "a page takes no longer than the rate allows"
        assert await statuses("127.0.0.1", 100) == {200: 100}
        assert (await statuses("127.0.8.8", 1)) == {200: 1}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    await write_layout(tmp_path / "layout", random_image(1, (1000,)))
    async with running_node(tmp_path, tmp_path / "layout") as found:
        yield found


async def test_what_only_waits_makes_way_where_no_descriptor_is_left(node: RunningNode) -> None:
    pid = node.process.pid
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 12, limits[1]))
    async with AsyncExitStack() as stack:
        connect = await stack.enter_async_context(clients())
        for number in range(60):
            await connect(node.host, node.metrics_port, f"127.0.{2 + number}.1")

        async def answers() -> bool:
            try:
                client = await connect(node.host, node.registry_port, node.host)
                return await client.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") == 200
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                return False

        await eventually(answers, what="the registry port answers although all others still hold on")


async def test_a_server_that_fails_says_so_in_one_line() -> None:
    async def broken(request: Request, reply: Reply) -> None:
        raise RuntimeError("a bug")

    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    (port,) = free_ports("127.0.0.1", 1)
    server = GuardedServer("test", broken, Bounds(10, 2, 5))
    try:
        async with server.serve(ListenAddress("127.0.0.1", port)), clients() as connect:
            for _ in range(5):
                assert await (await connect("127.0.0.1", port)).ask() == 500
    finally:
        logs.configure()
    assert len(stream.getvalue().splitlines()) == 1, "the same bug is told once a minute"
    assert "a bug" in stream.getvalue()
