"""What containerd on this node would do for a tag or a part of an image: from where it comes, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from speil.trace.found import Holder, Part, TagFound, Trace


class Source(StrEnum):
    """From where content comes."""

    HERE = "here"  # containerd has it, and asks nobody
    PEER = "peer"
    STORE = "store"  # of a tag alone: speil answers it from this node's store
    UPSTREAM = "upstream"
    OWN_URL = "own url"  # a layer that may not be distributed


@dataclass(frozen=True, slots=True)
class Verdict:
    """`does` is a sentence for people."""

    source: Source
    does: str


@dataclass(frozen=True, slots=True)
class Total:
    """How many parts come from one source, and how many bytes those have that state their size."""

    parts: int = 0
    size_bytes: int = 0


def of_tag(tag: TagFound) -> Verdict:
    """For the tag of an image."""
    match tag.origin:
        case "store":
            return Verdict(Source.STORE, "speil answers the tag from this node's store")
        case "peer":
            return Verdict(Source.PEER, f"speil answers the tag: {_count(tag.holders_asked, 'peer')} asked, they agree")
        case _:
            return Verdict(Source.UPSTREAM, f"containerd resolves the tag upstream: {tag.miss}")


def of_part(part: Part, refusal: str) -> Verdict:
    """For one manifest, config or layer."""
    if part.held:
        return Verdict(Source.HERE, "containerd has it and requests nothing")
    if part.is_foreign:
        return Verdict(Source.OWN_URL, "containerd downloads it from the URLs in the manifest: it may not be shared")
    if refusal:
        return Verdict(Source.UPSTREAM, f"containerd downloads it from the upstream registry: {refusal}")
    if part.served_by is not None:
        return Verdict(Source.PEER, f"containerd gets it through speil from {_named(part.served_by)}")
    why = part.miss or "no peer has it"
    if part.holders_count:
        why = f"none of {_count(part.holders_count, 'peer')} with a record of it serves it ({why})"
    return Verdict(Source.UPSTREAM, f"containerd downloads it from the upstream registry: {why}")


def of_image(trace: Trace) -> str:
    """A sentence about the whole pull."""
    if trace.refusal:
        return f"A pull goes to the upstream registry: {trace.refusal}."
    if not trace.parts:
        return f"A pull goes to the upstream registry: {trace.note or 'the image is not known here'}."
    found = totals(trace)
    missing = found[Source.UPSTREAM].parts
    if found[Source.HERE].parts == len(trace.parts):
        name = "and its name" if trace.image_here else "but no image of this name"
        return f"All content is in this node's store, {name}: a pull downloads nothing."
    if missing:
        return f"A pull gets {_count(missing, 'part')} of {len(trace.parts)} from the upstream registry."
    return "A pull gets all that is missing here from peers, and nothing from the upstream registry."


def totals(trace: Trace) -> dict[Source, Total]:
    """Parts and bytes by source, each source once."""
    found: dict[Source, Total] = {source: Total() for source in Source if source is not Source.STORE}
    for part, source in _sources(trace.parts, trace.refusal):
        before = found[source]
        found[source] = Total(before.parts + 1, before.size_bytes + part.size_bytes)
    return found


def _sources(parts: Iterable[Part], refusal: str) -> list[tuple[Part, Source]]:
    return [(part, of_part(part, refusal).source) for part in parts]


def _named(holder: Holder) -> str:
    zone = f" in zone {holder.zone}" if holder.zone else ""
    return f"{holder.host or holder.peer}{zone}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
