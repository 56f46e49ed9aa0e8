"""One pull of this node, as the shell sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from speil.inflight.held import HeldRequest
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.oci.endpoint import Content


def key_of(digest: Digest) -> bytes:
    """The content key of a digest."""
    return content_key(str(digest))


@dataclass(slots=True, eq=False)
class Flight:
    """`request` is containerd's, while it is answered. Times are loop time."""

    key: bytes
    content: Content
    digest: Digest
    started: float
    idle_since: float  # when the last request ended, or its ingest was seen last
    request: HeldRequest | None = None
    source: PeerInfo | None = None
    total: int = 0  # 0 while it is not known
    follows_since: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # set when it ends, or its ingest begins
    why: str = ""  # the umpire's reason why nobody may follow
    ended: bool = False
    frees_slot: bool = False  # see ContentRequest
    granted_at: float = float("-inf")  # when this node was to fetch it for the region
    is_aside: bool = False
    aside_at: float = float("-inf")  # when its request stepped aside last
    times_aside: int = 0  # how often it did; see `Slots.asides`
    joined_at: float = float("-inf")  # when it was told whom to follow

    def wake(self) -> None:
        """Something happened: those who wait look again."""
        self.changed.set()
        self.changed = asyncio.Event()
