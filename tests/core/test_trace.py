"""What a trace says that containerd would do, and the JSON of it."""

from __future__ import annotations

import json

import pytest

from speil.oci.digest import Digest
from speil.trace.document import document
from speil.trace.found import Holder, Kind, Measured, Part, TagFound, Trace
from speil.trace.verdict import Source, of_image, of_part, of_tag, totals

DIGEST = Digest.parse(f"sha256:{1:064x}")
HOLDER = Holder("12D3KooA", "10.0.0.7", "z1")


def part(**changes: object) -> Part:
    return Part(Kind.LAYER, DIGEST, "application/x", 100, **changes)  # type: ignore[arg-type]


def trace(*parts: Part, **changes: object) -> Trace:
    return Trace("reg.test/app:1", DIGEST, "linux/amd64", None, parts, **{"image_here": False, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "refusal", "source", "words"),
    [
        (part(held=True), "", Source.HERE, "requests nothing"),
        (part(held=True, served_by=HOLDER), "", Source.HERE, "requests nothing"),
        (part(served_by=HOLDER), "", Source.PEER, "from 10.0.0.7 in zone z1"),
        (part(served_by=Holder("12D3KooA", "", "")), "", Source.PEER, "from 12D3KooA"),
        (part(miss="no peer found"), "", Source.UPSTREAM, "no peer found"),
        (part(holders_count=2, miss="all failed"), "", Source.UPSTREAM, "none of 2 peers with a record of it"),
        (part(), "reg.test is not mirrored", Source.UPSTREAM, "reg.test is not mirrored"),
        (part(is_foreign=True), "", Source.OWN_URL, "URLs in the manifest"),
    ],
)
def test_where_a_part_comes_from(found: Part, refusal: str, source: Source, words: str) -> None:
    verdict = of_part(found, refusal)
    assert verdict.source is source
    assert words in verdict.does


def test_where_a_tag_is_resolved() -> None:
    assert of_tag(TagFound("store", "", 0.1, 2)).source is Source.STORE
    assert "1 peer asked" in of_tag(TagFound("peer", "", 0.1, 1)).does
    missed = of_tag(TagFound("", "holders disagree", 0.1, 3))
    assert (missed.source, "holders disagree" in missed.does) == (Source.UPSTREAM, True)


def test_the_sentence_about_a_pull() -> None:
    assert "downloads nothing" in of_image(trace(part(held=True), image_here=True))
    assert "no image of this name" in of_image(trace(part(held=True)))
    assert "1 part of 2 from the upstream" in of_image(trace(part(held=True), part()))
    assert "nothing from the upstream" in of_image(trace(part(served_by=HOLDER)))
    assert "not mirrored" in of_image(trace(part(), refusal="it is not mirrored"))
    assert "unknown here" in of_image(trace(note="it is unknown here"))


def test_totals_by_source() -> None:
    found = totals(trace(part(held=True), part(served_by=HOLDER), part(served_by=HOLDER), part()))
    assert {source.value: (total.parts, total.size_bytes) for source, total in found.items()} == {
        "here": (1, 100), "peer": (2, 200), "upstream": (1, 100), "own url": (0, 0),
    }  # fmt: skip


def test_the_document_is_json_with_what_was_measured() -> None:
    measured = Measured(100, 0.5, 0.01, True, "", HOLDER)
    found = json.loads(
        json.dumps(
            document(trace(part(served_by=HOLDER, measured=measured, holders=(HOLDER,), holders_count=7), part()))
        )
    )
    first, second = found["parts"]
    assert first["measured"] == {
        "bytes": 100, "seconds": 0.5, "first_byte_seconds": 0.01, "bytes_per_second": 200, "is_whole": True,
        "peer": {"peer": "12D3KooA", "host": "10.0.0.7", "zone": "z1"}, "error": "",
    }  # fmt: skip
    assert (first["holders_count"], first["source"], second["source"], second["measured"]) == (
        7, "peer", "upstream", None,
    )  # fmt: skip
    assert found["totals"]["peer"] == {"parts": 1, "bytes": 100}
