"""A trace as JSON: the answer to POST `/debug/web/trace`.

`parts` are in the order in which containerd requests them. Times are in seconds, sizes in bytes. `source` is one of
`verdict.Source`, `does` a sentence.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from speil.trace.found import Measured, Part, Trace
from speil.trace.verdict import of_image, of_part, of_tag, totals


def document(trace: Trace) -> dict[str, Any]:
    """JSON as `json.dumps` takes it."""
    return {
        "image": trace.image,
        "digest": str(trace.digest) if trace.digest else None,
        "platform": trace.platform,
        "image_here": trace.image_here,
        "refusal": trace.refusal,
        "note": trace.note,
        "does": of_image(trace),
        "tag": _tag(trace),
        "parts": [_part(part, trace.refusal) for part in trace.parts],
        "left_out": trace.left_out,
        "totals": {
            source.value: {"parts": total.parts, "bytes": total.size_bytes} for source, total in totals(trace).items()
        },
        "seconds": _rounded(trace.seconds),
    }


def _tag(trace: Trace) -> dict[str, Any] | None:
    if (tag := trace.tag) is None:
        return None
    verdict = of_tag(tag)
    return {
        "source": verdict.source.value,
        "does": verdict.does,
        "seconds": _rounded(tag.seconds),
        "holders_asked": tag.holders_asked,
    }


def _part(part: Part, refusal: str) -> dict[str, Any]:
    verdict = of_part(part, refusal)
    return {
        "kind": part.kind.value,
        "digest": str(part.digest),
        "media_type": part.media_type,
        "platform": part.platform,
        "size": part.size_bytes,
        "held_here": part.held,
        "holders": [asdict(holder) for holder in part.holders],
        "holders_count": part.holders_count,
        "find_seconds": _rounded(part.find_seconds),
        "source": verdict.source.value,
        "peer": asdict(part.served_by) if part.served_by else None,
        "does": verdict.does,
        "measured": _measured(part.measured) if part.measured else None,
    }


def _measured(found: Measured) -> dict[str, Any]:
    speed = found.size_bytes / found.seconds if found.size_bytes and found.seconds > 0 else None
    return {
        "bytes": found.size_bytes,
        "seconds": _rounded(found.seconds),
        "first_byte_seconds": _rounded(found.first_byte_seconds),
        "bytes_per_second": round(speed) if speed else None,
        "is_whole": found.is_whole,
        "peer": asdict(found.holder) if found.holder else None,
        "error": found.error,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
