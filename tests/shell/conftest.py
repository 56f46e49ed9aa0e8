"""Fixtures of the shell tests."""

from __future__ import annotations

import pytest

from speil.wire import socket_body
from tests.shell import mirrors


@pytest.fixture(params=["zero-copy", "copy"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: with bodies that pass in the kernel, however small, and with bodies that are copied."""
    monkeypatch.setattr(socket_body, "SPLICE_BYTES_MIN", 1)
    monkeypatch.setattr(mirrors, "ZERO_COPY", request.param == "zero-copy")
    return str(request.param)
