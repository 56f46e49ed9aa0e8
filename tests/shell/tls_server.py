"""A TLS server on loopback that records the requests, and answers with what the test sets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from speil.testing.certificates import CertificateAuthority

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class TlsServer:
    """A running server; `answer` may be changed at any time."""

    url: str
    answer: Answer
    authorizations: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)  # common names of client certificates, "" without


async def empty_object(_: web.Request) -> web.StreamResponse:
    """`{}`."""
    return web.json_response({})


@asynccontextmanager
async def tls_server(
    authority: CertificateAuthority, folder: Path, *hosts: str, trust: CertificateAuthority | None = None, port: int = 0
) -> AsyncIterator[TlsServer]:
    """Serve with a certificate for `hosts` (default 127.0.0.1); `trust` asks clients for theirs."""
    pair = authority.issue_server(*(hosts or ("127.0.0.1",)))
    path = folder / "server.pem"
    path.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    if trust:
        context.load_verify_locations(cadata=trust.pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
    server = TlsServer("", empty_object)

    async def handle(request: web.Request) -> web.StreamResponse:
        server.authorizations.append(request.headers.get("Authorization", ""))
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert") or {}
        names = dict(pair for group in certificate.get("subject", ()) for pair in group)
        server.clients.append(names.get("commonName", ""))
        return await server.answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
