"""What a request asks for, parsed once: a ping, or content that this node serves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from speil.border.http import is_peer
from speil.http1.message import Headers, Request
from speil.mirror.settings import MirrorSettings
from speil.observe.logs import get_log
from speil.oci import endpoint
from speil.oci.endpoint import Content, EndpointError, Ping
from speil.sources.peer_client import FOLLOW_HEADER

FREES_SLOT_SINCE = (2, 1)  # of containerd
_CONTAINERD = re.compile(r"containerd/v?(\d{1,4})\.(\d{1,4})", re.ASCII)

log = get_log("mirror")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for content.

    from_peer: another node sends it, which is never answered from a third one.
    follows: that node takes content that this one is downloading, too.
    frees_slot: see ContentRequest.
    """

    content: Content
    from_peer: bool
    range_header: str
    accept: str
    is_containerd: bool
    follows: bool = False
    frees_slot: bool = False

    @property
    def client(self) -> str:
        """The label of who asks."""
        return "peer" if self.from_peer else "node"


class Parser:
    """What this node serves, by its settings."""

    def __init__(self, settings: MirrorSettings) -> None:
        self._settings, self._selection = settings, settings.selection

    def parse(self, request: Request) -> Asked | Ping | None:
        """None for what is not served: no endpoint, a filtered image, a registry that is not mirrored."""
        try:
            found = endpoint.parse(request.path, request.query.get("ns") or self._settings.default_registry or None)
        except EndpointError as error:
            log.debug("not an endpoint", path=request.path, error=error)
            return None
        if isinstance(found, Ping):
            return found
        if self.refusal(found):
            return None
        headers = request.headers
        from_peer = is_peer(headers)
        return Asked(
            found,
            from_peer,
            headers.get("Range", ""),
            headers.get("Accept", ""),
            headers.get("User-Agent", "").startswith("containerd/"),
            from_peer and headers.get(FOLLOW_HEADER, "").lower() == "true",
            frees_slot(headers),
        )

    def refusal(self, content: Content) -> str:
        """Why this content is not served, with the setting that decides it; "" where it is."""
        registry, name, settings = content.registry, content.name, self._settings
        if registry is not None and not settings.mirrors(registry):
            return f"{registry} is not mirrored (--mirrored-registries)"
        if content.digest is not None:
            is_allowed = self._selection.allows_repository(registry, name)
        elif not settings.resolve_tags:
            return "tags are not answered (--resolve-tags=false)"
        else:
            is_allowed = registry is not None and self._selection.allows_tag(registry, name, str(content.reference))
        return "" if is_allowed else "a registry filter excludes it (--registry-filters)"


def frees_slot(headers: Headers) -> bool:
    """See ContentRequest; False where the client does not say its version."""
    client = _CONTAINERD.match(headers.get("User-Agent", ""))
    return client is not None and (int(client[1]), int(client[2])) >= FREES_SLOT_SINCE
