"""Log lines: one per fact, in both formats, whatever the values are."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from speil.observe import logs


def written(format: str, level: str = "INFO", **fields: object) -> str:
    """One line at INFO."""
    stream = io.StringIO()
    logs.configure(level, format, stream)
    logs.get_log("part").info("something happened", **fields)
    return stream.getvalue()


def test_json_has_spegels_keys_and_ours() -> None:
    line = json.loads(written("json", count=3, ratio=0.1234567, names=("a", "b"), nothing=None))
    assert (line["level"], line["msg"], line["component"]) == ("INFO", "something happened", "part")
    assert (line["count"], line["ratio"], line["names"]) == (3, 0.123457, ["a", "b"])
    assert "nothing" not in line
    assert line["time"].endswith("Z")


@given(st.text(max_size=700))
def test_a_line_stays_a_line_in_both_formats(value: str) -> None:
    for format in ("json", "text"):
        line = written(format, value=value)
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1


def test_below_the_level_nothing_is_written() -> None:
    assert written("text", level="WARN") == ""
