"""Bootstrap by `http`: the page in all of Spegel's forms, under a base address or a whole URL, with certificates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.routing.bootstrap import http_answer
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.http import ANSWER_BYTES_MAX, CertificateError, HttpBootstrapper, pages, tls_context
from speil.routing.bootstrap.http_answer import AnswerError
from speil.routing.settings import RouterSettings
from speil.setting import ListenAddress, SettingError
from speil.testing.certificates import CertificateAuthority, KeyPair
from speil.testing.eventually import eventually
from tests.shell.nodes import free_ports, running_node
from tests.shell.tls_server import tls_server

LOCAL = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/10.0.0.1/tcp/5001"),))
OTHER = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/10.0.0.2/tcp/5001"),))
FOUND = [OTHER.addresses[0].with_peer_id(OTHER.peer_id)]
# as Spegel 0.7.4 answers: go-libp2p lists what the node would listen on, QUIC and loopback too
SPEGEL = json.dumps(
    {"Addrs": ["/ip4/10.0.0.2/udp/5001/quic-v1", "/ip4/10.0.0.2/tcp/5001", "/nope/1"], "ID": str(OTHER.peer_id)}
)
MAIN = json.dumps([{"ID": str(OTHER.peer_id), "Addrs": ["/ip4/10.0.0.2/tcp/5001"]}])


@asynccontextmanager
async def server(answers: Mapping[str, str]) -> AsyncIterator[tuple[str, list[str]]]:
    """A web server with an answer a path, 404 elsewhere; its base address, and the paths that were asked."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path_qs)
        text = answers.get(request.path_qs)
        return web.Response(status=404) if text is None else web.Response(text=text)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("tail", "page", "asked_first"),
    [
        ("", "/id", "/id"),  # Spegel 0.4 to 0.7.4: a base address
        ("/", "/id", "/id"),
        ("", "/", "/id"),  # nothing at /id: the address as it stands
        ("/id", "/id", "/id"),  # a whole URL: speil, Spegel up to 0.1 and main
        ("/id/", "/id/", "/id/"),
        ("/mesh", "/mesh", "/mesh"),
        ("/mesh", "/mesh/id", "/mesh"),  # a base address with a path
        ("/mesh/", "/mesh/id", "/mesh/"),
        ("/peers?token=a", "/peers?token=a", "/peers?token=a"),
    ],
)
@pytest.mark.parametrize("text", [SPEGEL, MAIN, str(FOUND[0])])
async def test_a_base_address_and_a_whole_url_lead_to_the_peer(
    tail: str, page: str, asked_first: str, text: str
) -> None:
    async with server({page: text}) as (base, asked):
        bootstrapper = HttpBootstrapper(base + tail, None)
        assert await bootstrapper.find(LOCAL) == FOUND
        assert asked[0] == asked_first
        before = len(asked)
        assert await bootstrapper.find(LOCAL) == FOUND
        assert asked[before:] == [page], "the page that answered is asked first"


async def test_a_page_that_is_no_id_is_passed_over_for_the_one_that_is() -> None:
    async with server({"/mesh": "<html>welcome</html>", "/mesh/id": SPEGEL}) as (base, _):
        assert await HttpBootstrapper(f"{base}/mesh", None).find(LOCAL) == FOUND


async def test_what_failed_is_said_for_each_page_that_was_tried() -> None:
    async with server({"/": "hello"}) as (base, _):
        with pytest.raises(BootstrapError, match=rf"{base}/id answered 404; {base} is no peer: 'hello'"):
            await HttpBootstrapper(base, None).find(LOCAL)


async def test_a_password_in_the_url_is_not_told() -> None:
    with pytest.raises(BootstrapError, match="can't be requested") as caught:
        await HttpBootstrapper("http://user:secret@127.0.0.1:1", None).find(LOCAL)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "3", "null", "[3]", "{}", "[[]]", "/nonsense", "[" * 100_000, '{"ID": 3, "Addrs": []}',
        '{"ID": "12D3x", "Addrs": ["/ip4/10.0.0.2/tcp/5001"]}', "[]",
        json.dumps({"ID": str(OTHER.peer_id), "Addrs": None}),
        json.dumps({"ID": str(OTHER.peer_id), "Addrs": ["/ip4/10.0.0.2/udp/5001/quic-v1"]}),
        json.dumps({"ID": str(OTHER.peer_id), "Addrs": "/ip4/10.0.0.2/tcp/5001"}),
    ],
)  # fmt: skip
def test_what_is_no_peer_is_an_error(text: str) -> None:
    with pytest.raises(AnswerError, match=r"names|is no peer"):
        http_answer.parse(text, LOCAL.peer_id, 5001)


@pytest.mark.parametrize("show", [http_answer.as_document, http_answer.as_list, http_answer.as_text])
def test_what_this_node_serves_it_understands_and_never_dials_itself(show: Callable[[PeerInfo], str]) -> None:
    assert http_answer.parse(show(OTHER), LOCAL.peer_id, 5001) == FOUND
    assert http_answer.parse(show(OTHER), OTHER.peer_id, 5001) == []


def test_a_list_may_leave_out_ids_and_ports() -> None:
    text = json.dumps([{"ID": "", "Addrs": ["/ip4/10.0.0.2", "/dns4/peer.test"]}, {"Addrs": ["/ip6/fd00::2/tcp/7"]}])
    found = ["/ip4/10.0.0.2/tcp/6001", "/dns/peer.test/tcp/6001", "/ip6/fd00::2/tcp/7"]
    assert [str(address) for address in http_answer.parse(text, LOCAL.peer_id, 6001)] == found


async def test_an_answer_is_read_to_its_end_and_no_further() -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for character in SPEGEL:
            await response.write(character.encode())
        return response

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * ANSWER_BYTES_MAX)

    for answer, outcome in ((in_pieces, "found"), (endless, "bytes")):
        async with _app(answer) as url:
            if outcome == "found":
                assert await HttpBootstrapper(url, None).find(LOCAL) == FOUND
            else:
                with pytest.raises(BootstrapError, match=f"more than {ANSWER_BYTES_MAX} bytes"):
                    await HttpBootstrapper(url, None).find(LOCAL)


@asynccontextmanager
async def _app(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/id", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/id"
    finally:
        await runner.cleanup()


async def test_the_three_pages_of_this_node() -> None:
    (port,) = free_ports("127.0.0.1", 1)
    serving = HttpBootstrapper("", ListenAddress("127.0.0.1", port))
    base = f"http://127.0.0.1:{port}"

    async def found() -> bool:
        try:
            return await HttpBootstrapper(base, None).find(LOCAL) == FOUND
        except BootstrapError:
            return False

    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
        task = group.create_task(serving.run(lambda: OTHER))
        await eventually(found, what="the page is served")
        for path, text in (
            ("/id", '{"ID": "%s", "Addrs": ["%s"]}'),
            ("/ids", '[{"ID": "%s", "Addrs": ["%s"]}]'),
        ):
            async with session.get(base + path) as response:
                assert await response.text() == text % (OTHER.peer_id, OTHER.addresses[0])
        async with session.get(f"{base}/id.txt") as response:
            assert await response.text() == str(FOUND[0])
        task.cancel()


def test_the_pages_that_an_address_may_mean() -> None:
    assert pages("") == []
    assert pages("http://h:1") == ["http://h:1/id", "http://h:1"]
    assert pages("http://h:1/a/") == ["http://h:1/a/", "http://h:1/a/id"]
    assert pages("http://h:1/a/id") == ["http://h:1/a/id"]


# --- certificates -------------------------------------------------------------------------------------------------


def _keep(directory: Path, authority: CertificateAuthority | None, pair: KeyPair | None) -> Path:
    directory.mkdir(exist_ok=True)
    if authority:
        (directory / "ca.crt").write_bytes(authority.pem)
    if pair:
        (directory / "tls.crt").write_bytes(pair.certificate)
        (directory / "tls.key").write_bytes(pair.key)
    return directory


async def test_https_with_an_authority_and_a_client_certificate(tmp_path: Path) -> None:
    authority, other = CertificateAuthority(), CertificateAuthority("other")
    async with tls_server(authority, tmp_path, trust=authority) as page:

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(text=MAIN)

        page.answer = answer
        certificates = _keep(tmp_path / "both", authority, authority.issue_client("node-1"))
        assert await HttpBootstrapper(page.url, None, cert_dir=certificates).find(LOCAL) == FOUND
        assert page.clients[-1] == "node-1"
        certificates = _keep(tmp_path / "authority", authority, None)
        assert await HttpBootstrapper(page.url, None, cert_dir=certificates).find(LOCAL) == FOUND
        assert page.clients[-1] == ""
        for wrong in (_keep(tmp_path / "wrong", other, None), None):
            with pytest.raises(BootstrapError, match=r"can't be requested: .*certificate verify failed"):
                await HttpBootstrapper(page.url, None, cert_dir=wrong).find(LOCAL)


async def test_certificates_that_were_renewed_are_taken_without_a_restart(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    certificates = _keep(tmp_path / "certificates", authority, authority.issue_client("old"))
    async with tls_server(authority, tmp_path, trust=authority) as page:
        bootstrapper = HttpBootstrapper(page.url, None, cert_dir=certificates)
        for name in ("old", "new"):
            _keep(certificates, authority, authority.issue_client(name))
            with pytest.raises(BootstrapError):
                await bootstrapper.find(LOCAL)  # the page says {}
            assert page.clients[-1] == name
        (certificates / "tls.key").unlink()
        with pytest.raises(BootstrapError, match=r"--http-bootstrap-cert-dir: .*tls\.key is missing"):
            await bootstrapper.find(LOCAL)


def test_certificates_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    one, other = authority.issue_client("one"), authority.issue_client("other")
    cases: dict[str, tuple[Path, str]] = {
        "half": (_keep(tmp_path / "half", authority, None), r"tls\.crt is missing"),
        "mixed": (_keep(tmp_path / "mixed", authority, KeyPair(one.certificate, other.key)), "can't be used together"),
        "no ca": (_keep(tmp_path / "no-ca", None, one), r"ca\.crt holds no certificate"),
        "a directory": (_keep(tmp_path / "directory", None, one), r"ca\.crt: it is a directory"),
    }
    (tmp_path / "half" / "tls.key").write_bytes(one.key)
    (tmp_path / "no-ca" / "ca.crt").write_text("nonsense")
    (tmp_path / "directory" / "ca.crt").mkdir()
    for directory, words in cases.values():
        with pytest.raises(CertificateError, match=words):
            tls_context(directory)
        with pytest.raises(SettingError, match=f"--http-bootstrap-cert-dir: .*{words}"):
            RouterSettings(bootstrap_kind="http", http_bootstrap_cert_dir=directory).bootstrapper()
    assert tls_context(_keep(tmp_path / "empty", None, None)).get_ca_certs() is not None, "as Spegel: the system's"


def test_two_pages_are_refused_and_either_name_is_taken() -> None:
    one, other = "http://10.0.0.1:5002", "http://10.0.0.2:5002/id"
    with pytest.raises(SettingError, match="set one of them"):
        RouterSettings(bootstrap_kind="http", http_bootstrap_peer=one, http_bootstrap_url=other).bootstrapper()
    for settings in (
        RouterSettings(bootstrap_kind="http", http_bootstrap_url=one),
        RouterSettings(bootstrap_kind="http", http_bootstrap_peer=one),
    ):
        bootstrapper = settings.bootstrapper()
        assert isinstance(bootstrapper, HttpBootstrapper)
        assert bootstrapper._urls == pages(one)


# --- whole nodes --------------------------------------------------------------------------------------------------


async def test_nodes_that_all_name_the_first_ones_base_address_are_one_mesh(tmp_path: Path) -> None:
    """The first has its own address as everybody has it: the same configuration on all nodes."""
    layout = tmp_path / "layout"
    (port,) = free_ports("127.0.0.1", 1)
    common = ["--bootstrap-kind=http", f"--http-bootstrap-peer=http://127.0.0.1:{port}/"]
    async with (
        running_node(tmp_path, layout, *common, f"--http-bootstrap-addr=127.0.0.1:{port}") as first,
        running_node(tmp_path, layout, *common) as second,
        aiohttp.ClientSession() as session,
    ):

        async def joined() -> bool:
            async with session.get(f"http://{second.host}:{second.metrics_port}/debug/state") as response:
                return [peer["hosts"] for peer in (await response.json())["peers"]] == [first.host]

        await eventually(joined, what="the second node has the first as its peer")


@pytest.mark.long
async def test_a_page_that_is_away_is_said_and_asked_again_until_it_is_there(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    (port,) = free_ports("127.0.0.1", 1)
    flags = ["--bootstrap-kind=http", f"--http-bootstrap-peer=http://127.0.0.1:{port}"]
    async with running_node(tmp_path, layout, *flags, ready=False) as node, aiohttp.ClientSession() as session:
        words = f"http://127.0.0.1:{port}/id can't be requested"
        await eventually(lambda: words in node.log.read_text(), what="the failure is said")
        async with running_node(tmp_path, layout, f"--http-bootstrap-addr=127.0.0.1:{port}", "--bootstrap-kind=http"):

            async def ready() -> bool:
                async with session.get(f"{node.url}/readyz") as response:
                    return response.status == 200

            await eventually(ready, timeout_seconds=60, what="the node is ready")
