"""Where a request's head ends in what a client has sent so far, and what in it h11 would let pass. No IO.

h11 takes a bare LF for a line's end, joins folded lines and allows most control characters. Two parsers that read such
a head in two ways are how requests are smuggled, and no client of ours sends one: each is an error here, as it was
with the stricter parser before.
"""

from __future__ import annotations

import re

import h11

from speil.http1.message import Headers, MalformedError
from speil.http1.reason import reason_of

HEAD_BYTES_MAX = 16 << 10  # containerd's has half a KiB; tokens of cloud registries have a few
# those that a client could mean (RFC 9110 and WebDAV); CONNECT is not one: speil is no proxy
METHODS = frozenset(
    b"GET HEAD POST PUT DELETE PATCH OPTIONS TRACE PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT".split()
)
_END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TEXT = bytes(set(range(0x20, 0x100)) - {0x7F} | set(b"\t\r\n"))  # what a head may consist of


class HeadBuffer:
    """What has come of the next heads; the bytes of one are taken out when it is whole."""

    __slots__ = ("_data", "_seen")

    def __init__(self) -> None:
        self._data = bytearray()
        self._seen = 0  # bytes in which no end was found

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        """More has come. Empty lines before a head are passed over (RFC 9112 §2.2)."""
        self._data += data
        if not self._seen:
            self._skip_empty_lines()

    def clear(self) -> None:
        """Forget what has come."""
        self._data.clear()
        self._seen = 0

    def take(self) -> bytes | None:
        """The next head, None while it is not whole. Raises MalformedError as soon as it can't become one."""
        data = self._data
        if not data:
            return None
        start = max(self._seen - len(_END) + 1, 0)
        end = data.find(_END, start)
        if end < 0:
            if not self._seen and not 0x41 <= data[0] <= 0x5A:
                raise MalformedError("no request line")
            if _BARE_LF.search(data, start):
                raise MalformedError("a line ends with LF alone")
            if len(data) > HEAD_BYTES_MAX:
                raise _too_large()
            self._seen = len(data)
            return None
        end += len(_END)
        if end > HEAD_BYTES_MAX:
            raise _too_large()
        head = bytes(data[:end])
        del data[:end]
        self._seen = 0
        self._skip_empty_lines()
        return head

    def _skip_empty_lines(self) -> None:
        while self._data.startswith(b"\r\n"):
            del self._data[:2]


def parse_head(machine: h11.Connection, head: bytes) -> tuple[h11.Request, Headers, bool]:
    """The request of a whole head, and whether a body follows it. Raises MalformedError."""
    if head.translate(None, _TEXT):
        raise MalformedError("a control character in the head")
    lines = head.count(b"\n")
    if lines != head.count(b"\r\n") or lines != head.count(b"\r"):
        raise MalformedError("a line ends with LF or CR alone")
    if b"\n " in head or b"\n\t" in head:
        raise MalformedError("a folded header field")
    try:
        machine.receive_data(head)
        event = machine.next_event()
        if not isinstance(event, h11.Request):
            raise MalformedError("no request")
        headers = Headers(event.headers)
        if event.method not in METHODS:
            raise MalformedError(f"unknown method {event.method[:20].decode('ascii', 'replace')!r}")
        if event.http_version not in (b"1.1", b"1.0"):
            raise MalformedError(f"HTTP/{event.http_version.decode('ascii', 'replace')}")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise MalformedError("both Content-Length and Transfer-Encoding")
        has_body = not isinstance(machine.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError as error:
        raise MalformedError(reason_of(error)) from None
    return event, headers, has_body


def _too_large() -> MalformedError:
    return MalformedError(f"a head of more than {HEAD_BYTES_MAX} bytes", 431)
