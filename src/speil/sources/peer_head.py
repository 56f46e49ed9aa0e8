"""The head of a peer's response: bytes in, the head or an error out. No IO.

h11 parses it, strictly. Bytes that came behind the head are `unread`: the first bytes of the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import h11

from speil.http1.reason import reason_of

HEAD_BYTES_MAX = 16 * 1024  # with interim responses; the head of a speil or Spegel has half a KiB
HEADERS_MAX = 64  # of one response; a speil sends a dozen
INTERIM_MAX = 4  # 1xx responses before the final one; none is expected, RFC 9110 §15.2 allows them
CONTENT_BYTES_MAX = 1 << 44  # 16 TiB, the largest file of ext4: a larger blob does not exist


class BadHeadError(ValueError):
    """The peer sent no valid head, or one that this node does not accept."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Names are in lower case; several values of one name are joined by a comma.

    `length` is the Content-Length, None where there is none or the body is chunked.
    """

    status: int
    headers: dict[str, str]
    length: int | None
    keeps_alive: bool


class HeadParser:
    """Parses one response: call `feed` with what comes until it returns a head."""

    def __init__(self, method: str) -> None:
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        # h11 takes a response to a request only; the method decides whether a body follows the head
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "peer")]))
        self._parser.send(h11.EndOfMessage())
        self._interim_count = self._fed = 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """The head, None while it is incomplete. Raises BadHeadError."""
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
            raise BadHeadError(f"no HTTP: {reason_of(error)}") from None
        if self._fed - len(self.unread if isinstance(event, h11.Response) else b"") > HEAD_BYTES_MAX:
            raise BadHeadError(f"a head of more than {HEAD_BYTES_MAX} bytes")
        return _head(event) if isinstance(event, h11.Response) else None

    @property
    def unread(self) -> bytes:
        """The bytes behind the head."""
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
