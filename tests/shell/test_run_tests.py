"""The runner of the steps: what it reports for tests that fail once, twice, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.run_tests import RETRIED_MAX, Outcome, Result, Step, run_static, run_tests, table

PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
FAILS_ONCE = """
from pathlib import Path
def test_fails_once():
    seen = Path(__file__ + ".fails_once")
    was_there = seen.exists()
    seen.touch()
    assert was_there
"""
TOO_MANY = {"a": "".join(FAILS_ONCE.replace("_once", f"_once_{n}") for n in range(RETRIED_MAX + 1))}
COUNTS_ITS_RUNS = """
from pathlib import Path
def test_counts():
    with Path(__file__).with_suffix(".runs").open("a") as file:
        file.write("x")
"""


def step_in(folder: Path, *options: str, **files: str) -> Step:
    """A step over made-up test files."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    return Step("made up", ("pytest", "-q", "-p", "xdist", *options))


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up tests need no plugins."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize(
    ("files", "outcome", "flaky"),
    [
        pytest.param({"a": PASSES}, Outcome.OK, (), marks=pytest.mark.long, id="passes"),
        pytest.param({"a": PASSES, "b": FAILS_ONCE}, Outcome.FLAKY, ("test_b.py::test_fails_once",), id="fails once"),
        pytest.param({"a": FAILS, "b": FAILS_ONCE}, Outcome.FAILED, (), id="one fails twice"),
        pytest.param({"a": "import nothing\n"}, Outcome.FAILED, (), marks=pytest.mark.long, id="can't be imported"),
        pytest.param(TOO_MANY, Outcome.FAILED, (), marks=pytest.mark.long, id="too many to retry"),
        pytest.param({}, Outcome.FAILED, (), marks=pytest.mark.long, id="no tests"),
    ],
)
def test_the_outcome_of_a_step(files: dict[str, str], outcome: Outcome, flaky: tuple[str, ...], tmp_path: Path) -> None:
    result = run_tests(step_in(tmp_path, **files), tmp_path)
    assert (result.outcome, result.flaky) == (outcome, flaky)


def test_only_what_failed_runs_again_and_in_one_process(tmp_path: Path) -> None:
    result = run_tests(step_in(tmp_path, "-n", "1", a=COUNTS_ITS_RUNS, b=FAILS_ONCE), tmp_path)
    assert result.outcome is Outcome.FLAKY
    assert (tmp_path / "test_a.runs").read_text() == "x"


@pytest.mark.long
def test_failures_of_an_earlier_run_are_not_run_again(tmp_path: Path) -> None:
    run_tests(step_in(tmp_path, a=FAILS), tmp_path)
    (tmp_path / "test_a.py").unlink()
    assert run_tests(step_in(tmp_path, b=FAILS_ONCE), tmp_path).flaky == ("test_b.py::test_fails_once",)


def test_a_static_step_prints_only_where_it_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.py").write_text("x = 1\n")
    assert run_static(Step("lint", ("ruff", "check", "good.py")), tmp_path).outcome is Outcome.OK
    assert capfd.readouterr().out == ""
    assert run_static(Step("lint", ("ruff", "check", "missing.py")), tmp_path).outcome is Outcome.FAILED
    assert "missing.py" in capfd.readouterr().out


def test_the_table_names_what_to_mend_and_how_to_repeat_what_failed() -> None:
    step = Step("made up", ("pytest", "-m", "not long"))
    lines = table(
        [
            Result(step, Outcome.OK, 1.4),
            Result(step, Outcome.FLAKY, 2.0, ("test_b.py::test_x",)),
            Result(step, Outcome.FAILED, 3.0),
        ]
    ).splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "flaky", "FAILED", "flaky:", "again:"]
    assert lines[-2:] == ["flaky: mend it: test_b.py::test_x", "again: .venv/bin/pytest -m 'not long'"]
