"""The man pages: every command and flag has its place, and the tools that read them find no fault."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

from speil.cli import app
from speil.cli.help import settings_of
from speil.cli.man import pages

DATE = "2026-11-26"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as files."""
    made = tmp_path_factory.mktemp("man1")
    for name, text in pages(DATE).items():
        (made / name).write_text(text, "ascii")
    return made


def rendered(page: Path) -> str:
    """As a person reads it, in a window that breaks no line of ours."""
    command = ["groff", "-man", "-Tascii", "-P-cbou", "-rLL=400n", str(page)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_there_is_a_page_for_each_program_and_each_command() -> None:
    named = {f"speil-{command.name.replace(' ', '-')}.1" for command in app.COMMANDS}
    assert set(pages(DATE)) == {"speil.1", "kubectl-speil.1", *named}


@pytest.mark.requires("groff")
def test_every_flag_is_explained(folder: Path) -> None:
    for command in app.COMMANDS:
        text = " ".join(rendered(folder / f"speil-{command.name.replace(' ', '-')}.1").split())
        kind: type = importlib.import_module(f"speil.cli.{command.module}").Settings
        for setting in settings_of(kind):
            assert (setting.place if setting.is_positional else ", ".join(setting.flags)) in text
            assert " ".join(setting.help.split()).encode("ascii", "ignore").decode() in text
            assert f"${setting.variable(by_hand=command.by_hand)})" in text
        assert "130" in text


@pytest.mark.requires("groff")
def test_groff_warns_of_nothing(folder: Path) -> None:
    for page in folder.iterdir():
        done = subprocess.run(["groff", "-man", "-ww", "-z", str(page)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page.name


@pytest.mark.requires("mandoc")
def test_mandoc_warns_of_nothing(folder: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *map(str, sorted(folder.iterdir()))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.requires("groff")
def test_texts_are_shown_as_they_are(folder: Path) -> None:
    page = folder / "speil-test.1"
    from speil.cli.man import _text

    odd = [".hidden request", "'quoted", "back\\slash and -dash", "`code`", "a \\fBbold\\fR trap", "50 %"]
    page.write_text(".TH X 1\n.SH NAME\nx \\- y\n.SH TEXT\n" + "".join(f".PP\n{_text(one)}\n" for one in odd))
    text = rendered(page)
    page.unlink()
    for one in odd:
        assert one in text
