"""Lets in the browser that was opened with this process's token, and no other user of the machine.

The token is random. The first request brings it in the URL and gets it as a cookie; the URL without it is what the
browser keeps. A browser is opened through a file that only this user can read: the command line of a process, which
everybody can read, has the file's name and not the token.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from speil.http1.message import Request


class Session:
    """One for each process; `port` is in the cookie's name, because ports of one host share their cookies."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._token, self._cookie = secrets.token_urlsafe(24), f"speil-{port}"

    @property
    def url_with_token(self) -> str:
        """What a browser is opened with."""
        return f"{self.url}?token={self._token}"

    def begins(self, request: Request) -> bool:
        """Whether a request brings the token in its URL."""
        return request.method == "GET" and request.path == "/" and self._is_token(request.query.get("token", ""))

    @property
    def set_cookie(self) -> tuple[str, str]:
        """The header that gives the browser the token.

        Not SameSite=Strict: the page that leads here is a file, and the browser would not send the cookie after it.
        """
        return "Set-Cookie", f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax"

    def allows(self, request: Request) -> bool:
        """Whether a request brings the token as a cookie."""
        for part in request.headers.get("Cookie", "").replace(",", ";").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie and self._is_token(value):
                return True
        return False

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode("utf-8", "surrogateescape"), self._token.encode())


@contextmanager
def redirect_file(url: str) -> Iterator[str]:
    """A file, which only this user can read, that leads a browser to `url`; its URI. It is gone after the block."""
    with TemporaryDirectory(prefix="speil-web-") as folder:
        file = Path(folder) / "open.html"
        shown = escape(url, quote=True)
        file.write_text(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={shown}">'
            f'<title>speil</title><a href="{shown}">speil: all regions</a>\n'
        )
        yield file.as_uri()
