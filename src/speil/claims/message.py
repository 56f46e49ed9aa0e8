"""What nodes send each other about claims, typed.

A message is the value of one field in a DHT message (`kad.message.Message.claim`), beside the key that the DHT message
names. Nodes that do not know the field ignore it: go-libp2p and older speil nodes answer the rest of the message.

| message | in a DHT message of type | from, to |
|---|---|---|
| Ask | GET_PROVIDERS | a node that misses the content, to the umpire of the key |
| Fetch, Follow, Holders, Defer, Alone | the answer to it | the umpire, to the asker |
| AskStatus | GET_PROVIDERS | a follower without bytes, to its source |
| Status | the answer to it | the source, to the follower |
| Tell | ADD_PROVIDER without a provider | the umpire, to the next closest nodes |
| Release | ADD_PROVIDER without a provider | a node whose download ended without the content, to the umpire |

An answer without the field means that the peer does not support claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from speil.kad.key import place
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

AVOIDED_MAX = 4  # peers in one question: few peers fail one node at a time
DEAD_MAX = 8  # umpires in one question that did not answer lately
HOLDERS_MAX = 8  # in one answer; a pull tries fewer
ROWS_MAX = 48  # in one message to the next closest: below 16 KiB
PATH_MAX = 96  # sources above a follower; `claim.DEPTH_MAX` is smaller


class Reason(IntEnum):
    """Why a node asks: it misses the content, or it left its source."""

    MISS = 0
    SILENT = 1  # no sign of life from the source
    NO_BYTE = 2  # it is alive and no byte came
    GONE = 3  # it does not have the content (any more), or the connection broke
    FULL = 4  # it feeds as many as it can
    SLOW = 5  # it is far ahead and sends slowly
    CRAWLING = 6  # it fetches, at a small part of the usual rate
    LOOP = 7  # it follows the asker

    @property
    def is_failure(self) -> bool:
        """Whether the source can't be named to others."""
        return self in (Reason.SILENT, Reason.NO_BYTE, Reason.GONE, Reason.CRAWLING)


class Phase(IntEnum):
    """How far a node is with the content."""

    NONE = 0
    FETCHING = 1  # from the upstream
    FOLLOWING = 2
    COMPLETE = 3


class Why(IntEnum):
    """Why a node has to fetch without a claim."""

    LIMIT = 0  # a limit of the umpire, or the asker failed others before
    SPOILED = 1  # copies in flight failed verification


class Ending(IntEnum):
    """How a download ended without the content."""

    CANCELLED = 0
    SPOILED = 1  # the bytes did not match the digest


@dataclass(frozen=True, slots=True)
class Ask:
    """Who has the content, or may I fetch it?

    `source` is the peer that `reason` is about. `avoided`: peers that failed the asker lately. `dead`: nodes closer to
    the key that did not answer. `size_bytes`, `rate` (at which this node's downloads from upstreams grow, all together)
    and `link` (the most that it can send), in bytes per second, are 0 where unknown.
    """

    reason: Reason = Reason.MISS
    source: PeerId | None = None
    size_bytes: int = 0
    rate: int = 0
    link: int = 0
    avoided: tuple[PeerId, ...] = ()
    dead: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetch:
    """The asker fetches, and others follow it."""


@dataclass(frozen=True, slots=True)
class Follow:
    """`source` has the content in part."""

    source: PeerInfo


@dataclass(frozen=True, slots=True)
class Holders:
    """These have the whole content, the one to ask first in front."""

    peers: tuple[PeerInfo, ...]


@dataclass(frozen=True, slots=True)
class Defer:
    """`closer` is closer to the key: ask it."""

    closer: PeerInfo


@dataclass(frozen=True, slots=True)
class Alone:
    """The asker fetches, and nobody follows it."""

    why: Why


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Are you alive, and how far are you?"""


@dataclass(frozen=True, slots=True)
class Status:
    """A sign of life. `path`: the tags of the nodes above, its source first."""

    phase: Phase
    offset: int = 0
    path: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One node in the tree of a key."""

    peer: PeerInfo
    phase: Phase
    places: int
    source: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """Rows that changed. Phase.NONE: the node has left."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """The sender's download ended without the content."""

    ending: Ending


Answer = Fetch | Follow | Holders | Defer | Alone
ClaimMessage = Answer | Ask | AskStatus | Status | Tell | Release


def tag(peer_id: PeerId) -> int:
    """A peer in a `Status.path`: 64 bits of its position."""
    return place(peer_id.multihash)
