"""Fixtures of the shell tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from speil.cli import app
from speil.observe import logs
from speil.wire import socket_body
from tests.shell import mirrors


@pytest.fixture(params=["zero-copy", "copy"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: with bodies that pass in the kernel, however small, and with bodies that are copied."""
    monkeypatch.setattr(socket_body, "SPLICE_BYTES_MIN", 1)
    monkeypatch.setattr(mirrors, "ZERO_COPY", request.param == "zero-copy")
    return str(request.param)


Speil = Callable[..., tuple[int, str, str]]


@pytest.fixture
def speil_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Speil]:
    """As `speil`, in this process: for commands that end before they start anything."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*argv: str) -> tuple[int, str, str]:
        code = app.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
