"""Basic auth (RFC 7617) from two files, read anew when they change; off while they are missing."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path


class BasicAuth:
    """The credentials in `directory`/username and /password."""

    def __init__(self, directory: Path) -> None:
        self._files = (directory / "username", directory / "password")
        self._stamp: tuple[int, ...] = ()
        self._header = ""

    @property
    def header(self) -> str:
        """The Authorization value that is right now; empty while auth is off."""
        try:
            stamp = tuple(file.stat().st_mtime_ns for file in self._files)
            if stamp != self._stamp:
                pair = ":".join(file.read_text().rstrip("\n") for file in self._files)
                self._header, self._stamp = "Basic " + base64.b64encode(pair.encode()).decode(), stamp
        except FileNotFoundError:
            self._header, self._stamp = "", ()
        return self._header

    def allows(self, authorization: str) -> bool:
        """Whether a request's Authorization passes; compared in constant time."""
        wanted = self.header
        return not wanted or hmac.compare_digest(authorization.encode(), wanted.encode())
