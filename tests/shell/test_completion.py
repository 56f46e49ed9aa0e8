"""Completion: the candidates, and real shells that are asked for them by the Tab key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speil.cli import app, complete
from speil.cli.program import Program
from tests.requirements import ROOT
from tests.shell.conftest import Speil
from tests.shell.terminals import Terminal, terminal

PROGRAMS = Path(sys.executable).parent
KUBECONFIG = """
apiVersion: v1
kind: Config
contexts: [{name: blue-one, context: {}}, {name: blue-two, context: {}}, {name: "arn:aws:eks/x", context: {}}]
"""


def words(*typed: str, program: Program = app.SPEIL) -> tuple[list[str], str]:
    """The candidates without their descriptions, and the directive."""
    *found, directive = complete.complete(program, typed)
    return [line.partition("\t")[0] for line in found], directive


@pytest.mark.parametrize(
    ("typed", "candidates", "directive"),
    [
        (["reg"], ["registry", "region"], ":4"),
        (["region", "s"], ["status"], ":4"),
        (["help", "region", "v"], ["verify"], ":4"),
        (["--log-level", "DEBUG", "ver"], ["version"], ":4"),
        (["--log-level=DEBUG", "ver"], ["version"], ":4"),
        (["--log-l"], ["--log-level"], ":4"),
        (["version", "--f"], ["--format"], ":4"),
        (["version", "--format", ""], ["text", "json"], ":4"),
        (["version", "--format=j"], ["--format=json"], ":4"),
        (["region", "status", "-o", "w"], ["wide"], ":4"),
        (["region", "status", "--watch="], ["--watch=true", "--watch=false"], ":4"),
        (["region", "status", "--kubeconfig", ""], [], ":0"),
        (["doctor", "--containerd-config="], [], ":0"),
        (["doctor", "--containerd-registry-config-path", ""], [], ":16"),
        (["completion", ""], ["bash", "zsh", "fish"], ":4"),
        (["completion", "bash", ""], [], ":4"),
        (["region", "trace", "img", "--q"], ["--quiet"], ":4"),
        (["xyzzy", ""], [], ":4"),
        (["version", ""], [], ":4"),
    ],
)
def test_candidates(typed: list[str], candidates: list[str], directive: str) -> None:
    assert words(*typed) == (candidates, directive)


def test_every_command_and_every_flag_can_be_completed() -> None:
    for program in (app.SPEIL, app.PLUGIN):
        first, _ = words("", program=program)
        for command in program.commands:
            head, *rest = command.name.split()
            assert head in first
            assert not rest or rest[0] in words(head, "", program=program)[0]
            flags, directive = words(*command.name.split(), "--", program=program)
            assert {"--help", "--log-level", "--log-format"} <= set(flags), command.name
            assert directive == ":4"


def test_contexts_are_those_of_the_kubeconfig_of_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    line = ["region", "status", "--kubeconfig", str(file), "--context"]
    assert words(*line, "blue") == (["blue-one", "blue-two"], ":4")
    assert words(*line[:2], f"--kubeconfig={file}", "--context=arn") == (["--context=arn:aws:eks/x"], ":4")
    assert words(*line[:2], "--context", "") == ([], ":4")
    file.write_text("{")
    assert words(*line, "blue") == ([], ":4")
    # and what is in a cluster that can't be reached is not waited for
    assert words("region", "doctor", "--kubeconfig", str(file), "") == ([], ":4")


def test_the_program_prints_candidates_and_scripts(speil_here: Speil) -> None:
    code, out, err = speil_here(app.COMPLETE, "region", "st")
    assert (code, out.partition("\t")[0], out.splitlines()[-1], err) == (0, "status", ":4", "")
    for shell in ("bash", "zsh", "fish"):
        code, out, err = speil_here("completion", shell)
        assert (code, err) == (0, "")
        assert "__complete" in out
    code, out, err = speil_here("completion", "tcsh")
    assert (code, out) == (2, "")
    assert "use one of bash, zsh, fish" in err
    assert speil_here("completion")[0] == 2


# --- real shells --------------------------------------------------------------------------------------------------

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SOURCE = {
    "bash": "bind 'set bell-style none'; source <(speil completion bash); echo rea''dy",
    "zsh": "autoload -Uz compinit; compinit -u -D; unsetopt beep; source <(speil completion zsh); echo rea''dy",
    "fish": "speil completion fish | source; echo rea''dy",
}
CLEAR = "\x15"  # Ctrl-U: the line that was typed


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.requires(name)) for name in START])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a shell that is here."""
    return str(request.param)


def start(shell: str, folder: Path) -> dict[str, str]:
    """The environment of the shell: nothing of this machine's settings, speil on PATH."""
    (folder / "config").write_text(KUBECONFIG)
    return {
        "HOME": str(folder),
        "ZDOTDIR": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "TMPDIR": str(folder),
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PS1": "$ ",
    }


def press_tab(opened: Terminal, typed: str, expected: str) -> None:
    """Type, press Tab, and wait until the line shows what was completed."""
    opened.output = b""
    opened.type(f"{typed}\t")
    opened.until(expected)
    opened.type(CLEAR)


def test_the_tab_key_completes(shell: str, tmp_path: Path) -> None:
    (tmp_path / "some-folder").mkdir()
    with terminal(*START[shell], cwd=tmp_path, columns=200, environ=start(shell, tmp_path)) as opened:
        opened.type(f"{SOURCE[shell]}\r")
        opened.until("ready\r")
        press_tab(opened, "speil regis", "try")
        press_tab(opened, "speil region stat", "us")
        press_tab(opened, "speil region status --kubeconfig=conf", "ig")
        press_tab(opened, "speil region status --kubeconfig=config --context arn:a", "ws:eks/x")
        press_tab(opened, "speil region status --output=j", "son")
        press_tab(opened, "speil doctor --containerd-registry-config-path some", "-folder")
        opened.type("exit\r")


def test_the_scripts_are_clean(shell: str) -> None:
    path = ROOT / "src/speil/cli/completions" / f"speil.{shell}"
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "bash" and shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", "-s", "bash", str(path)], check=False).returncode == 0
