"""What the holders of a tag answered, and which digest follows from it.

Two holders that agree may both be wrong for a moment, and more answers cost more than they are worth. So members of
the region are asked for three answers. Where peers do not prove that they are members, all holders that can be found
are asked, and one that answers another digest is enough to leave the tag to the upstream: otherwise a quick stranger
would outvote the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.oci.platform import PlatformImage

HOLDERS_ASKED_MAX = 16  # of one tag; each stale record costs a round trip


@dataclass(frozen=True, slots=True)
class Scope:
    """How far a tag's holders are asked: how many answers are compared, and how long to wait for more of them."""

    answers_max: int
    more_holders_seconds: float  # after the first holder was found, for the search to find others
    more_answers_seconds: float  # after the first answer, for the others


# a lookup that finds one holder mostly finds the others at once
MEMBERS = Scope(3, 0.005, 0.1)
STRANGERS = Scope(HOLDERS_ASKED_MAX, 0.05, 0.3)


@dataclass(frozen=True, slots=True)
class HolderAnswer:
    """One holder's answer.

    `images` are the images below the tag that it holds whole, None where it does not say (Spegel, older speils).
    """

    peer: PeerInfo
    digest: Digest
    images: tuple[PlatformImage, ...] | None


def digests_of(own: Digest | None, answers: Iterable[HolderAnswer]) -> frozenset[Digest]:
    """The digests that this node (`own`) and the holders give a tag: with more than one the upstream decides."""
    found = {answer.digest for answer in answers}
    return frozenset(found | {own} if own else found)


def whole_images(answers: Iterable[HolderAnswer]) -> dict[Digest, PlatformImage]:
    """The images that holders say they hold whole, by the digest of their manifest."""
    return {image.manifest: image for answer in answers for image in answer.images or ()}
