"""The client: what an answer means, over real TLS; a server that misbehaves. The real API server is in tests/system."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from speil.kube import api as api_module
from speil.kube.access import Access, tls_context
from speil.kube.api import KubeApi
from speil.kube.error import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    KubeUnauthorizedError,
    KubeUnreachableError,
)
from speil.testing.certificates import CertificateAuthority
from tests.shell.tls_server import TlsServer, empty_object, tls_server


class FixedAccess:
    """Always the same."""

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self._access = Access(server, tls, "Bearer x")

    async def current(self) -> Access:
        return self._access

    def refused(self) -> None:
        pass


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[TlsServer, KubeApi]]:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:
        client = KubeApi(FixedAccess(server.url, tls_context(authority.pem)), "speil-test")
        try:
            yield server, client
        finally:
            await client.close()


# the bodies are those of an API server of 1.36
FORBIDDEN = {
    "kind": "Status",
    "message": 'leases.coordination.k8s.io "speil" is forbidden: User "system:serviceaccount:region-a:speil" cannot '
    'get resource "leases" in API group "coordination.k8s.io" in the namespace "region-b"',
    "reason": "Forbidden",
    "details": {"name": "speil", "group": "coordination.k8s.io", "kind": "leases"},
    "code": 403,
}


@pytest.mark.parametrize(
    ("status", "body", "kind", "attributes"),
    [
        (401, {"message": "Unauthorized"}, KubeUnauthorizedError, {}),
        (403, FORBIDDEN, KubeForbiddenError, {"verb": "get", "terminating": False}),
        (
            403,
            {"message": "x", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
            KubeForbiddenError,
            {"verb": "", "terminating": True},
        ),
        (404, {"details": {"kind": "leases"}}, KubeNotFoundError, {"kind": "leases"}),
        (404, "404 page not found", KubeNotFoundError, {"kind": ""}),
        (409, {"reason": "AlreadyExists"}, KubeConflictError, {}),
        (422, {"message": "Invalid value: 0: must be specified for an update"}, KubeConflictError, {}),
        (422, {"message": "spec.leaseDurationSeconds: must be greater than 0"}, KubeError, {}),
        (500, {"details": ["odd"], "message": None}, KubeError, {}),
        (302, "<html>", KubeError, {}),
    ],
)  # fmt: skip
async def test_an_answer_is_the_error_that_tells_what_to_do(
    served: tuple[TlsServer, KubeApi], status: int, body: Any, kind: type[KubeError], attributes: dict[str, Any]
) -> None:
    server, client = served

    async def answer(_: web.Request) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(text=body, status=status, headers={"Location": "/elsewhere"})
        return web.json_response(body, status=status)

    server.answer = answer
    with pytest.raises(kind) as raised:
        await client.request("GET", "/apis/x")
    assert type(raised.value) is kind
    assert {name: getattr(raised.value, name) for name in attributes} == attributes
    assert "\n" not in str(raised.value)
    assert str(status) in str(raised.value)


async def test_a_server_that_hangs_is_left_by_the_callers_timeout_and_asked_again(
    served: tuple[TlsServer, KubeApi],
) -> None:
    server, client = served

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.answer = hang
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.request("GET", "/")
    server.answer = empty_object
    assert (await client.request("GET", "/")).served_at is not None


async def test_without_a_timeout_of_the_caller_there_is_one(
    served: tuple[TlsServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = served
    monkeypatch.setattr(api_module, "REQUEST_SECONDS_MAX", 0.1)

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.answer = hang
    with pytest.raises(KubeUnreachableError, match="did not answer"):
        await client.request("GET", "/")


async def test_an_answer_without_bound_is_cut_off(
    served: tuple[TlsServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = served
    monkeypatch.setattr(api_module, "ANSWER_BYTES_MAX", 1 << 20)

    async def long(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * (4 << 20))

    server.answer = long
    with pytest.raises(KubeError, match="more than"):
        await client.request("GET", "/")


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with tls_server(CertificateAuthority(), tmp_path) as server:
        pass
    client = KubeApi(FixedAccess(server.url, ssl.create_default_context()), "test")
    try:
        with pytest.raises(KubeUnreachableError, match=r"127\.0\.0\.1"):
            await client.request("GET", "/")
    finally:
        await client.close()
