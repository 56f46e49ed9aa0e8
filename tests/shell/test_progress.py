"""Progress on a real terminal, in a pipe and where nobody wants it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from speil.progress import Progress, bar
from speil.progress.terminal import cells, coloured, fitted
from tests.requirements import ROOT
from tests.shell.terminals import terminal

# Stages of each kind, with a line between; it waits for a file where a test has something to do.
WORK = """
import os, sys, time
from pathlib import Path
from speil.progress import Progress
with Progress(quiet="-q" in sys.argv, lines="--no-lines" not in sys.argv) as progress:
    progress.stage("läyers of 映像", 4)
    progress.advance(note="first")
    progress.line("a line that stays →")
    progress.advance(2)
    progress.stage("searching")
    while "--wait" in sys.argv and not Path(sys.argv[-1]).exists():
        time.sleep(0.01)
print("the result")
"""
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
CONTROL = re.compile(rb"\x1b|\r(?!\n)")


def work(*argv: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """The program with pipes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environ}
    return subprocess.run([sys.executable, "-c", WORK, *argv], capture_output=True, check=True, env=environment)


def shown(*argv: str, columns: int = 80, **environ: str) -> bytes:
    """What a terminal of that width was sent."""
    environment = {"PYTHONPATH": str(ROOT / "src"), **environ}
    with terminal(sys.executable, "-c", WORK, *argv, columns=columns, environ=environment) as opened:
        assert opened.end() == 0, opened.text
        return opened.output


def screen(data: bytes) -> str:
    """What is left on the screen in the end: a carriage return and an erasure remove the line before them."""
    text = COLOUR.sub(b"", data).decode().replace("\r\n", "\n")
    return "\n".join(line.rpartition("\r\x1b[J")[2] for line in text.split("\n"))


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    output = shown()
    assert "░" in output.decode()
    assert COLOUR.search(output)
    assert "1 of 4  first" in output.decode()
    assert "searching: 0 s" in output.decode()
    assert screen(output) == "a line that stays →\nthe result\n"


def test_a_pipe_has_lines_on_stderr_and_no_control_characters() -> None:
    done = work()
    assert done.stdout.decode() == "a line that stays →\nthe result\n"
    assert done.stderr.decode() == "läyers of 映像\nsearching\n"
    assert work("--no-lines").stderr == b""


def test_a_pipe_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    out = io.StringIO()
    with Progress(stream=out) as progress:
        progress.stage("asking nodes", 3, "nodes")
        for number in range(3):
            progress.advance(note=f"n{number}")
        progress.note("last")
    assert out.getvalue() == (
        "asking nodes\nasking nodes: 1 of 3 nodes  n0\nasking nodes: 2 of 3 nodes  n1\n"
        "asking nodes: 3 of 3 nodes  n2\nasking nodes: 3 of 3 nodes  last\n"
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_quiet_is_quiet(is_terminal: bool) -> None:
    if is_terminal:
        assert shown("-q").replace(b"\r\n", b"\n") == b"the result\n"
    else:
        done = work("-q")
        assert (done.stdout, done.stderr) == (b"the result\n", b"")


def test_no_color_leaves_the_bar_without_colours() -> None:
    output = shown(NO_COLOR="1")
    assert "█" in output.decode()
    assert not COLOUR.search(output)
    assert COLOUR.search(shown(NO_COLOR="")), "an empty one counts as unset: no-color.org"


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_can_do_nothing_has_lines(term: str) -> None:
    output = shown(TERM=term)
    assert not CONTROL.search(output)
    assert "searching" in output.decode()


@pytest.mark.parametrize("columns", [0, 1, 2, 5, 12, 40])
def test_a_line_fits_into_any_width(columns: int) -> None:
    output = shown(columns=columns)
    assert "the result" in output.decode()
    for drawn in COLOUR.sub(b"", output).decode().split("\r\x1b[J"):
        line = drawn.partition("\r\n")[0].partition("\x1b")[0]
        if "stays" not in line and "result" not in line:
            assert cells(line) <= max((columns or 80) - 1, 0), repr(line)


def test_a_terminal_that_gets_narrower_is_redrawn(tmp_path: Path) -> None:
    go = tmp_path / "go"
    environ = {"PYTHONPATH": str(ROOT / "src")}
    with terminal(sys.executable, "-c", WORK, "--wait", str(go), columns=100, environ=environ) as opened:
        opened.until("searching: 0 s")
        opened.resize(24, 6)
        opened.until("\x1b[2A", seconds_max=30)  # 14 columns have become three lines
        go.touch()
        assert opened.end() == 0
    assert opened.output.endswith(b"the result\r\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_any_encoding_will_do(encoding: str, is_terminal: bool) -> None:
    if is_terminal:
        text = shown(PYTHONIOENCODING=encoding).decode(encoding)
        assert ("░" in text) == (encoding == "utf-8")
        assert ("." * 8 in text) == (encoding != "utf-8")
    else:
        text = (done := work(PYTHONIOENCODING=encoding)).stdout.decode(encoding) + done.stderr.decode(encoding)
    assert "the result" in text
    assert ("läyers" if encoding != "ascii" else "l?yers") in text


def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    read, write = os.pipe()
    os.close(read)
    broken = os.fdopen(write, "w")
    with Progress(stream=broken) as progress:
        progress.stage("asking", 2)
        progress.stage("asking again", 2)
    with suppress(BrokenPipeError):
        broken.close()
    closed = io.StringIO()
    closed.close()
    with Progress(stream=closed) as progress:
        progress.stage("asking", 2)


async def test_waiting_takes_the_time_and_is_shown() -> None:
    out = io.StringIO()
    began = time.monotonic()
    with Progress(stream=out) as progress:
        await progress.wait("watching", 0.05)
    assert time.monotonic() - began >= 0.05
    assert out.getvalue() == "watching\n"


FINDINGS = """
from speil.cli.findings import show
from speil.finding import Finding, Level
show([Finding("a", Level.OK, "fine"), Finding("b", Level.FAIL, "not fine", "mend it")], "text")
"""


@pytest.mark.parametrize(
    ("environ", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_findings_are_coloured_on_a_terminal_alone(environ: dict[str, str], is_coloured: bool) -> None:
    environ = {"PYTHONPATH": str(ROOT / "src"), **environ}
    with terminal(sys.executable, "-c", FINDINGS, environ=environ) as opened:
        assert opened.end() == 0
    assert (b"\x1b[32mok   \x1b[0m a: fine" in opened.output) == is_coloured
    assert (b"\x1b" in opened.output) == is_coloured
    done = subprocess.run(
        [sys.executable, "-c", FINDINGS], capture_output=True, check=True, env={**os.environ, **environ}
    )
    assert done.stdout.decode() == "ok    a: fine\nfail  b: not fine\n      → mend it\n"


def test_a_note_of_another_program_can_not_break_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    out = io.StringIO()
    with Progress(stream=out) as progress:
        progress.stage("running", 1)
        progress.note("one\ntwo\x1b[2J" + "x" * 1000)
    first, second, end = out.getvalue().split("\n")
    assert (first, end) == ("running", "")
    assert second.startswith("running: 0 of 1  one two [2Jxxx")
    assert len(second) == bar.LINE_CELLS_MAX


def test_texts_are_measured_in_columns() -> None:
    assert cells("layer") == 5
    assert cells("映像") == 4
    assert cells("e\u0301") == 1
    assert fitted("映像 one", 3) == "映"
    assert fitted("a\tb\x1b[31m", 10) == "a b [31m"
    assert coloured("x", "31", io.StringIO()) == "x"
