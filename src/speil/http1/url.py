"""URLs as the client needs them: whom to connect to, the request target, the credentials. No IO."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode, urlsplit

from speil.http1.error import RequestError

_PORTS = {"http": 80, "https": 443}
_KEPT = "/%:@!$&'()*+,;=~-._"  # of a path, as it is written


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom to connect to."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The Host field's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in parts; `authorization` is made of its user and password, "" without."""

    origin: Origin
    target: str
    authorization: str


def parse_url(text: str, params: Mapping[str, str] | None = None) -> Url:
    """`params` are added to the query. Raises RequestError, without the text's password."""
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if (parts.hostname or "").isascii() else "idna").decode()
    except ValueError as error:
        raise RequestError(f"not a URL: {error}") from None
    if parts.scheme not in _PORTS or not host:
        raise RequestError(f"not an http or https URL: {parts._replace(netloc=host).geturl()!r}")
    query = "&".join(part for part in (quote(parts.query, safe=_KEPT + "?"), urlencode(params or {})) if part)
    target = (quote(parts.path, safe=_KEPT) or "/") + (f"?{query}" if query else "")
    authorization = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Url(Origin(parts.scheme, host, port or _PORTS[parts.scheme]), target, authorization)
