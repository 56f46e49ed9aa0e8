"""Requirements of tests: skipped with the command that installs what is missing, failed in CI."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests.properties import examples
from tests.requirements import REQUIREMENTS, ROOT

# A property that is worth more or fewer examples says so: tests/properties.py.
settings.register_profile("speil", deadline=None, print_blob=True, max_examples=examples(50))
settings.load_profile("speil")

# Tests start hundreds of processes, each of which would compile all modules anew.
if sys.dont_write_bytecode:
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".cache" / "pycache")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

# These folders make one API server, one image or one cluster for all their tests: two workers would make two.
ONE_WORKER_FOLDERS = tuple(
    Path("tests", folder) for folder in ("system/kube", "system/isolation", "system/image", "cluster")
)

_met: dict[str, bool] = {}


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", "requires(*names): what the test needs, see tests/requirements.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file (or of a folder that shares its fixtures) in one process, in their order."""
    for item in items:
        path = item.path.relative_to(config.rootpath)
        folder = next((folder for folder in ONE_WORKER_FOLDERS if path.is_relative_to(folder)), None)
        item.add_marker(pytest.mark.xdist_group(str(folder or path)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Peer ids are new in each process; the names of tests have to be the same in all."""
    return re.sub(r"12D3Koo\w+", "PEER", val) if isinstance(val, str) and "12D3Koo" in val else None


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
    if os.environ.get("SPEIL_REQUIRE_ALL") == "1" and name not in os.environ.get("SPEIL_MAY_SKIP", "").split(","):
        pytest.fail(f"{name} is missing: {requirement.install}", pytrace=False)
    pytest.skip(f"{name} is missing: {requirement.install}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each thing that is missing, also where the tests ran in other processes."""
    missing: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        missing.update(name for name in REQUIREMENTS if reason.startswith(f"Skipped: {name} is missing: "))
    for name, count in missing.items():
        terminalreporter.write_line(f"skipped {count}: no {name}. To run them: {REQUIREMENTS[name].install}")
