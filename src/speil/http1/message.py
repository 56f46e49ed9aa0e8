"""Requests as handlers see them: header fields, the target and its parts, and whose connection it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from speil.http1.places import Place

FIELDS_MAX = 128  # of one head; containerd sends six, a peer twelve, a browser behind proxies thirty
QUERY_FIELDS_MAX = 64  # containerd sends `ns` alone


class MalformedError(ValueError):
    """What the other side sent is no HTTP/1.1, or more than a bound allows; `status` is the answer to a client."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


class Headers(Mapping[str, str]):
    """Header fields by name in any case. `items()` has lower-case names; a repeated field is joined by ", ".

    Bytes that are not UTF-8 are kept as surrogates (`surrogateescape`).
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """`fields` as h11 has them, names in lower case. Raises MalformedError above FIELDS_MAX."""
        found: dict[str, str] = {}
        for count, (raw_name, raw_value) in enumerate(fields, 1):
            if count > FIELDS_MAX:
                raise MalformedError(f"more than {FIELDS_MAX} header fields", 431)
            name, value = raw_name.decode("ascii"), raw_value.decode("utf-8", "surrogateescape")
            found[name] = f"{found[name]}, {value}" if name in found else value
        self._fields = found

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    `target` is as on the request line, `path` is decoded (`%2f` is a slash then, `*` is itself), and of a query field
    that comes twice `query` has the first. `place.host` is the client's address.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Headers
    place: Place


def parse_target(target: str) -> tuple[str, dict[str, str]]:
    """The decoded path and the query of a request target. Raises MalformedError."""
    if not target.startswith("/") and target != "*":
        target = _origin_form(target)
    if "#" in target:
        target = target.partition("#")[0]
    path, _, query_text = target.partition("?")
    if "%" in path:
        path = unquote(path)
    query: dict[str, str] = {}
    if query_text:
        try:
            for name, value in parse_qsl(query_text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX):
                query.setdefault(name, value)
        except ValueError:
            raise MalformedError(f"more than {QUERY_FIELDS_MAX} query fields") from None
    return path, query


def _origin_form(target: str) -> str:
    """Path and query of an absolute target, which clients send to proxies and servers must accept (RFC 9112 §3.2.2)."""
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise MalformedError("the request target is neither a path nor a URL")
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
