"""The files of the pages. They are read when they are requested and not kept: an idle node has none in memory."""

from __future__ import annotations

from pathlib import Path

from speil.http1.reply import Reply
from speil.web.headers import SECURITY_HEADERS

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SHARED = frozenset(("page.css", "show.js", "icon.svg"))  # of both pages


async def send_file(reply: Reply, name: str) -> None:
    """Answer with one of the package's files; `name` is one that the program names, never a client."""
    data = (_FOLDER / name).read_bytes()
    await reply.send(200, [("Content-Type", _TYPES[Path(name).suffix]), *SECURITY_HEADERS], data)
