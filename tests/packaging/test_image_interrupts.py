"""Ctrl-C ends the making of an image at once, whatever program it has started, and leaves nothing of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.requirements import ROOT
from tests.shell.terminals import check_interrupt, terminal

pytestmark = pytest.mark.long
MAKE = (sys.executable, "-m", "scripts.image", "--architectures=amd64", "--no-cache")
SECONDS_MAX = 300


@pytest.mark.parametrize(
    "when",
    [
        "building the wheel: 0 s",
        "Debian packages: 0 of",
        "amd64: wheels: 0 s",
        "compiling modules: 0 of",
        "compressing layers: 0 of",
    ],
)
def test_an_interrupt(when: str, tmp_path: Path) -> None:
    output = tmp_path / "dist" / "image.tar"
    shown = check_interrupt([*MAKE, f"--output={output}"], when, tmp_path, {"PYTHONPATH": str(ROOT)})
    assert "interrupted; nothing was written" in shown
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


def test_a_terminal_shows_each_stage_and_then_the_result(tmp_path: Path) -> None:
    trees = tmp_path / "trees"
    argv = [sys.executable, "-m", "scripts.image", f"--trees={trees}"]
    with terminal(*argv, cwd=ROOT, environ={"TMPDIR": str(tmp_path), "NO_COLOR": "1"}) as opened:
        assert opened.end(SECONDS_MAX) == 0, opened.text[-1000:]
    for stage in ("building the wheel", "Debian packages: ", "wheels", "compiling modules: 0 of", "copying the trees"):
        assert stage in opened.text
    assert (trees / "application" / "usr" / "bin" / "kubectl-speil").stat().st_mode & 0o111
    assert not list((trees / "application").rglob("share/man")), "the image has no pager"
