"""Server-sent events (WHATWG HTML, "Server-sent events"): what has changed, to a bounded number of open pages.

While nothing changes, a stream sends only a comment now and then, which shows whether the client is still there. A
client that does not take what is sent loses its stream; what it missed is in the first events of its next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from speil.http1.message import Request
from speil.http1.places import Place
from speil.http1.reply import OpenEnded, Reply
from speil.web.headers import SECURITY_HEADERS

STREAMS_MAX = 8  # open at a time; each page has one, and hidden pages have none
STREAMS_OF_STRANGERS_MAX = 6  # of clients that are not on this node: the others stay for it
STREAMS_PER_SHARE_MAX = 4  # of one address or prefix
HEARTBEAT_SECONDS = 20.0  # below the idle timeouts of proxies
TAKE_SECONDS_MAX = 10.0  # for a client to take what was written
STREAM_SECONDS_MAX = 3600.0  # then the browser connects anew: a forgotten page does not keep its place for ever
RETRY_MILLISECONDS = 2000  # after a lost stream


class Cursor(Protocol):
    """What one page has got so far."""

    def changes(self) -> Iterable[tuple[str, str]]:
        """The events that it has not got: a name, and one line of JSON. At first all that it needs."""

    @property
    def wait_seconds(self) -> float:
        """How long to wait before the next call of `changes`."""


class Feed(Protocol):
    """What pages follow."""

    def open(self) -> AbstractAsyncContextManager[Cursor]:
        """A cursor for one page. What the feed does while pages follow it runs within the context."""


def _nothing(count: int) -> None:
    """The number is not used."""


class EventStreams:
    """The streams of one port."""

    def __init__(
        self, feed: Feed, *, opened: Callable[[int], None] = _nothing, refused: Callable[[], None] = lambda: None
    ) -> None:
        """`opened` is called with the number of open streams when it changes, `refused` for each refusal."""
        self._feed, self._opened, self._refused = feed, opened, refused
        self._open: list[Place] = []

    def __len__(self) -> int:
        return len(self._open)

    async def answer(self, request: Request, reply: Reply) -> None:
        """Send events until the client is gone or the server stops; 503 where no place for a stream is left.

        To HEAD the head alone, at once.
        """
        place, headers = request.place, [("Content-Type", "text/event-stream"), *SECURITY_HEADERS]
        if request.method == "HEAD":
            async with reply.stream_open(200, headers):
                return
        if not self._has_room(place):
            self._refused()
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "5"), *SECURITY_HEADERS]
            await reply.send(503, headers, b"too many pages are open: close one\n")
            return
        self._open.append(place)
        self._opened(len(self._open))
        try:
            async with self._feed.open() as cursor, reply.stream_open(200, headers) as body:
                try:
                    await _follow(cursor, body)
                except TimeoutError:
                    body.abort()
                except ConnectionError:
                    pass  # the client is gone
        finally:
            self._open.remove(place)
            self._opened(len(self._open))

    def _has_room(self, place: Place) -> bool:
        if len(self._open) >= STREAMS_MAX:
            return False
        if place.is_own:
            return True
        strangers = [one for one in self._open if not one.is_own]
        of_share = sum(one.share == place.share for one in strangers)
        return len(strangers) < STREAMS_OF_STRANGERS_MAX and of_share < STREAMS_PER_SHARE_MAX


async def _follow(cursor: Cursor, body: OpenEnded) -> None:
    """Raises TimeoutError where the client takes nothing, ConnectionError where it is gone."""
    now = asyncio.get_running_loop().time
    text, ends_at, written_at = f"retry: {RETRY_MILLISECONDS}\n\n", now() + STREAM_SECONDS_MAX, now()
    while not body.abandoned.is_set() and now() < ends_at:
        text += "".join(f"event: {name}\ndata: {data}\n\n" for name, data in cursor.changes())
        if not text and now() - written_at >= HEARTBEAT_SECONDS:
            text = ":\n\n"
        if text:
            async with asyncio.timeout(TAKE_SECONDS_MAX):
                await body.write(text.encode())
            text, written_at = "", now()
        try:
            async with asyncio.timeout(cursor.wait_seconds):
                await body.abandoned.wait()
        except TimeoutError:
            continue
