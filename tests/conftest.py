"""Requirements of tests: skipped with the command that installs what is missing, failed in CI."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import settings

from tests.requirements import REQUIREMENTS

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_met: dict[str, bool] = {}
_missing: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", "requires(*names): what the test needs, see tests/requirements.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, a test whose requirements are not met."""
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            need(name)


def need(name: str) -> None:
    """Skip (or fail, in CI) unless the requirement is met."""
    requirement = REQUIREMENTS[name]
    if name not in _met:
        _met[name] = requirement.is_met()
    if _met[name]:
        return
    _missing[name] += 1
    if os.environ.get("SPEIL_REQUIRE_ALL") == "1":
        pytest.fail(f"{name} is missing: {requirement.install}", pytrace=False)
    pytest.skip(f"{name} is missing: {requirement.install}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each thing that is missing."""
    for name, count in _missing.items():
        terminalreporter.write_line(f"skipped {count}: no {name}. To run them: {REQUIREMENTS[name].install}")
