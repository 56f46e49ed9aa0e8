"""The facts that a trace collects: of the tag, and of each manifest, config and layer of the image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from speil.oci.digest import Digest


class Kind(StrEnum):
    """What a part of an image is."""

    INDEX = "index"
    MANIFEST = "manifest"
    CONFIG = "config"
    LAYER = "layer"


@dataclass(frozen=True, slots=True)
class Holder:
    """A peer that has content. `host` is its address, `zone` is "" where it is not known."""

    peer: str
    host: str
    zone: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A measuring pull: `size_bytes` that came in `seconds`, the first of them after `first_byte_seconds`.

    `is_whole`: all of the content came; otherwise a bound on bytes or time ended the pull. `error`: why nothing, or not
    all that was asked for, came.
    """

    size_bytes: int
    seconds: float
    first_byte_seconds: float | None
    is_whole: bool
    error: str = ""
    holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One manifest, config or layer. `size_bytes` is 0 where it is not known.

    held: it is in this node's store, which is containerd's. is_foreign: a runtime downloads it from URLs in the
    manifest. holders: some peers with a provider record, of `holders_count`. find_seconds: time to the first of them,
    None where there is none. served_by: the peer that answered a request for it.
    """

    kind: Kind
    digest: Digest
    media_type: str
    size_bytes: int
    platform: str = ""
    held: bool = False
    is_foreign: bool = False
    holders: tuple[Holder, ...] = ()
    holders_count: int = 0
    find_seconds: float | None = None
    served_by: Holder | None = None
    miss: str = ""
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class TagFound:
    """How this node answers a tag. `origin`: store or peer; "" for a miss, with its reason in `miss`."""

    origin: str
    miss: str
    seconds: float
    holders_asked: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace. `refusal`: why this node's speil serves nothing of the image; "" where it does.

    image_here: the store has an image of this name. left_out: parts that a bound left out. note: why the parts are not
    known, or from where they are known.
    """

    image: str
    digest: Digest | None
    platform: str
    tag: TagFound | None
    parts: tuple[Part, ...]
    image_here: bool
    refusal: str = ""
    note: str = ""
    left_out: int = 0
    seconds: float = 0.0
