"""The head of a peer's answer: bytes in, the head or an error out. No IO.

h11 parses it, strictly; it is given nothing of the body. What came behind the head is `unread`: the body's first bytes,
which go on where the socket's next ones will.
"""

from __future__ import annotations

from dataclasses import dataclass

import h11

HEAD_BYTES_MAX = 16 * 1024  # interim answers among them; a speil's or Spegel's head has half a KiB
HEADERS_MAX = 64  # of one answer; a speil's has a dozen
INTERIM_MAX = 4  # 1xx answers before the one that counts; none is expected, RFC 9110 §15.2 allows them
CONTENT_BYTES_MAX = 1 << 44  # 16 TiB, the largest file of ext4: whoever says more has no such blob
QUOTED_CHARS_MAX = 120  # of a peer's text in an error


class BadHeadError(ValueError):
    """What the peer sent is no head that we understand."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Names are in lower case; a name that came twice has both values, joined by a comma.

    `length` is the Content-Length, None where there is none or the body is chunked.
    """

    status: int
    headers: dict[str, str]
    length: int | None
    keeps_alive: bool


class HeadParser:
    """Parses one answer; `feed` it what comes until it gives a head."""

    def __init__(self, method: str) -> None:
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        # h11 takes an answer to a request only; of the request it matters here whether a body follows the head
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "peer")]))
        self._parser.send(h11.EndOfMessage())
        self._interim_count = self._fed = 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """The head, None while it is not whole. Raises BadHeadError."""
        if not data:
            return None
        self._fed += len(data)
        try:
            self._parser.receive_data(data)
            while isinstance(event := self._parser.next_event(), h11.InformationalResponse):
                self._interim_count += 1
                if self._interim_count > INTERIM_MAX:
                    raise BadHeadError(f"more than {INTERIM_MAX} interim answers")
        except h11.RemoteProtocolError as error:
            raise BadHeadError(f"no HTTP: {str(error)[:QUOTED_CHARS_MAX]}") from None
        if self._fed - len(self.unread if isinstance(event, h11.Response) else b"") > HEAD_BYTES_MAX:
            raise BadHeadError(f"a head of more than {HEAD_BYTES_MAX} bytes")
        return _head(event) if isinstance(event, h11.Response) else None

    @property
    def unread(self) -> bytes:
        """What came behind the head."""
        return self._parser.trailing_data[0]


def _head(event: h11.Response) -> ResponseHead:
    if not event.http_version.startswith(b"1."):
        raise BadHeadError(f"HTTP/{event.http_version.decode('ascii', 'replace')}")
    if len(event.headers) > HEADERS_MAX:
        raise BadHeadError(f"{len(event.headers)} headers")
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    length = None
    if "content-length" in headers and "transfer-encoding" not in headers:
        length = int(headers["content-length"])  # h11 lets nothing but a few ASCII digits pass
        if length > CONTENT_BYTES_MAX:
            raise BadHeadError(f"a body of {length} bytes")
    closes = "close" in headers.get("connection", "").lower() or event.http_version == b"1.0"
    return ResponseHead(event.status_code, headers, length, not closes)
