"""Which requests of browsers a port answers: none that another page makes.

A page of another site can make a browser send requests here, but it can't read the answers, and its POST carries its
own `Origin`. So what causes traffic is a POST, and a foreign Origin or Sec-Fetch-Site is refused. With DNS rebinding
another site's name leads to this address: then the browser takes the page for ours, but sends that site's name as
`Host`. So Host has to be an address, or a name that this port is known by.

A client that is no browser sends CLIENT_HEADER, and its Host is not checked: the API server's proxy passes on the name
that the client called the API server by. No script can set a header whose name begins with `Sec-` (Fetch standard,
"forbidden request-header").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from speil.http1.message import Request
from speil.multiformats.network import ip_of

CLIENT_HEADER = "Sec-Speil-Client"
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,8}")
# suffixes that no site on the Internet has: RFC 6761, and a cluster's own zones
_OWN_SUFFIXES = (".localhost", ".svc", ".svc.cluster.local")


@dataclass(frozen=True, slots=True)
class Refused:
    """The status of the answer, and a line that says what to do."""

    status: int
    why: str


class Guard:
    """The check of one port. `names` are further names that this port is known by, in any case, without a port."""

    def __init__(self, names: Iterable[str] = (), *, hint: str = "open the page by its IP address") -> None:
        """`hint` ends the message to a browser that came by another name."""
        self._names, self._hint = frozenset(name.lower().rstrip(".") for name in names if name), hint

    def refusal(self, request: Request, *, acts: bool = False) -> Refused | None:
        """Why a request is not answered, None where it is; `acts`: it causes traffic or changes something."""
        headers = request.headers
        if CLIENT_HEADER in headers:
            return None
        host = headers.get("Host", "")
        if not self._is_own(name_of(host)):
            return Refused(421, f"this page is not known by the name {host[:100]!r}: {self._hint}")
        return _foreign(headers, host) if acts else None

    def refusal_of_browser(self, request: Request) -> Refused | None:
        """Why a browser gets no answer. For routes that other clients reach by any name.

        Every browser sends Accept-Language, and no script can leave it out.
        """
        return self.refusal(request) if "Accept-Language" in request.headers else None

    def _is_own(self, name: str) -> bool:
        if ip_of(name) is not None or name in self._names:
            return True
        # a name without a dot is not a site's; in a cluster it is a Service or a node
        return _NAME.fullmatch(name) is not None and ("." not in name or name.endswith(_OWN_SUFFIXES))


def name_of(host: str) -> str:
    """The name or address in a Host header, in lower case, without the port; "" where it has none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """The host and port of an Origin header, in lower case; "" where it has none, as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _foreign(headers: Mapping[str, str], host: str) -> Refused | None:
    """The check of a request that acts: a browser says where it comes from."""
    site = headers.get("Sec-Fetch-Site", "same-origin")
    origin = headers.get("Origin")
    is_own = origin is None or _netloc(origin) == host.lower() != ""
    if is_own and site == "same-origin":
        return None
    return Refused(403, "another page sent this request: only the page of this node may")
