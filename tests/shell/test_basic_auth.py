"""Basic auth: its files in all states, headers in all bytes; and a handler that fails sends containerd upstream."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.cli import configuration
from speil.config import ConfigError
from speil.mirror.basic_auth import FILE_BYTES_MAX, BasicAuth
from speil.region.settings import RegionSettings
from speil.routing.memory import MemoryMesh
from tests.shell.mirrors import Mirror, mirror

PATH = "/v2/lab/app/blobs/sha256:" + "a" * 64


def _token(user: str | bytes, password: str | bytes) -> str:
    parts = [part.encode() if isinstance(part, str) else part for part in (user, password)]
    return "Basic " + base64.b64encode(b":".join(parts)).decode()


def _write(directory: Path, user: bytes | None, password: bytes | None) -> Path:
    directory.mkdir(exist_ok=True)
    for name, data in (("username", user), ("password", password)):
        if data is not None:
            (directory / name).write_bytes(data)
    return directory


@pytest.mark.parametrize(
    ("user", "password", "header"),
    [
        (None, None, ""),
        (b"", b"", ""),
        (b"\n", b"", ""),
        (b"user", b"secret", _token("user", "secret")),
        (b"user\n", b"secret\r\n", _token("user", "secret")),
        (b"user", None, _token("user", "")),  # as Spegel
        (None, b"secret", _token("", "secret")),
        ("müller".encode(), "pässwörd".encode(), _token("müller", "pässwörd")),
        (b"\xff", b"\xfe\x00", _token(b"\xff", b"\xfe\x00")),
    ],
)
def test_what_the_files_say(tmp_path: Path, user: bytes | None, password: bytes | None, header: str) -> None:
    auth = BasicAuth(_write(tmp_path / "auth", user, password))
    assert auth.header == header
    assert auth.allows(header)
    assert auth.allows("Basic Og==") == (not header)
    assert auth.failure == ""
    if header:
        assert auth.allows(header.replace("Basic", "basic"))
        assert not auth.allows(header.replace("Basic", "Bearer"))
        assert not auth.allows("")


@given(st.binary(max_size=40))
def test_no_bytes_in_a_header_are_an_error(data: bytes) -> None:
    auth = BasicAuth(Path("/nonexistent"))
    auth._token, auth._stamp = b"dTpw", ((), ())
    text = data.decode("utf-8", "surrogateescape")
    assert auth.allows(text) is auth.allows(f"Basic {text}") is False or text.strip() == "dTpw"


def _put(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def broken(directory: Path) -> None:
        directory.mkdir()
        put(directory / name)

    return broken


BROKEN: dict[str, Callable[[Path], None]] = {
    "the directory is a file": Path.touch,
    "a FIFO": _put("password", os.mkfifo),
    "a directory": _put("username", Path.mkdir),
    "a link in a circle": _put("username", lambda path: path.symlink_to("username")),
    "a device": _put("username", lambda path: path.symlink_to("/dev/zero")),
    "too large": _put("username", lambda path: path.write_bytes(b"x" * (FILE_BYTES_MAX + 1))),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_files_that_can_not_be_read_open_nothing_and_containerd_goes_upstream(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "auth"
    BROKEN[broken](directory)
    async with mirror(MemoryMesh(), basic_auth_dir=directory) as node:
        digest = node.store.put(b"content")
        for header in (b"", b"Authorization: Basic Og==\r\n", b"Authorization: Basic \xff\xfe\r\n"):
            status, body = await _ask(node, f"/v2/lab/app/blobs/{digest}", header)
            assert (status, body) == (404, b"")
        assert (await _ask(node, "/livez"))[0] == 200
    assert sum("basic auth can't be read" in record.message for record in caplog.records) == 1
    settings = configuration.Settings(RegionSettings(), ("http://127.0.0.1:5000",), basic_auth_dir=directory)
    with pytest.raises(ConfigError, match="--basic-auth-dir"):
        configuration._headers(settings)


async def test_credentials_that_can_no_longer_be_read_stay_in_force(tmp_path: Path) -> None:
    directory = _write(tmp_path / "auth", b"user", b"secret")
    auth = BasicAuth(directory)
    assert auth.allows(_token("user", "secret"))
    (directory / "password").unlink()
    os.mkfifo(directory / "password")
    assert auth.allows(_token("user", "secret"))
    assert not auth.allows(_token("user", "other"))
    (directory / "password").unlink()
    (directory / "password").write_text("other")
    assert auth.allows(_token("user", "other"))


async def test_bytes_of_no_encoding_are_wrong_credentials(tmp_path: Path) -> None:
    async with mirror(MemoryMesh(), basic_auth_dir=_write(tmp_path / "auth", b"user", b"secret")) as node:
        for value in (b"Basic \xff", b"\xc3\x28", b"Basic \xed\xa0\x80", b"Basic " + b"A" * 5000):
            status, _ = await _ask(node, PATH, b"Authorization: " + value + b"\r\n")
            assert status == 401
        right = f"Authorization: {_token('user', 'secret')}\r\n".encode()
        assert (await _ask(node, PATH, right))[0] == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_handler_that_fails_is_a_miss(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with mirror(MemoryMesh()) as node:

        async def fail(*arguments: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("speil.sources.own_store.OwnStore.open", fail)
        for _ in range(5):
            assert await _ask(node, PATH, method=method) == (404, b"")
        assert node.sample("http_request_duration_seconds_count", code="404") == 5
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]  # the traceback is for DEBUG
    assert sum("a request failed" in record.message for record in errors) == 1


async def _ask(node: Mirror, path: str, headers: bytes = b"", method: str = "GET") -> tuple[int, bytes]:
    """Bytes as they are, which no client library would send."""
    reader, writer = await asyncio.open_connection(node.host, node.port)
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: containerd/2\r\nConnection: close\r\n".encode()
        + headers
        + b"\r\n"
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
