"""What a shell has to do for a pull in flight."""

from __future__ import annotations

from dataclasses import dataclass

from speil.claims.message import Ask, Reason, Release, Tell
from speil.multiformats.peer_info import PeerInfo


@dataclass(frozen=True, slots=True)
class AskUmpire:
    """Send `ask` to `umpire`, or pass it to this node's own. Then call `answered`, or `unanswered` for a failure."""

    key: bytes
    umpire: PeerInfo
    ask: Ask


@dataclass(frozen=True, slots=True)
class Join:
    """Request the content from `source` as a follower, from `offset` on, and pass its bytes to containerd."""

    key: bytes
    source: PeerInfo
    offset: int


@dataclass(frozen=True, slots=True)
class AskSource:
    """Send AskStatus to `source`; call `source_said` with its answer."""

    key: bytes
    source: PeerInfo


@dataclass(frozen=True, slots=True)
class Leave:
    """End the request to `source`. containerd's request stays open."""

    key: bytes
    source: PeerInfo
    reason: Reason


@dataclass(frozen=True, slots=True)
class GoUpstream:
    """Answer containerd 404, or end the body (FIN): it fetches from the upstream. `claimed`: others will follow."""

    key: bytes
    claimed: bool


@dataclass(frozen=True, slots=True)
class UseHolders:
    """Serve containerd's request from these peers, from `offset` on, as from any provider."""

    key: bytes
    peers: tuple[PeerInfo, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class SendRelease:
    """Send `release` to `umpire`, or pass it to this node's own. No answer is needed."""

    key: bytes
    umpire: PeerInfo
    release: Release


Action = AskUmpire | Join | AskSource | Leave | GoUpstream | UseHolders | SendRelease


@dataclass(frozen=True, slots=True)
class TellNext:
    """Send `tell` to the `nodes` other nodes closest to `key` that understand claims. No answer is needed."""

    key: bytes
    tell: Tell
    nodes: int
