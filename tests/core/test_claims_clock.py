"""Nothing of sharing in flight reads the time of day: a clock that is set neither ends nor prolongs a wait."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import speil

SOURCES = Path(speil.__file__).parent
# what decides about waits, claims and followers, and what it is told by
MODULES = sorted(
    [
        *(SOURCES / "claims").glob("*.py"),
        *(SOURCES / "inflight").glob("*.py"),
        *(SOURCES / "routing").glob("*claim*.py"),
        *(SOURCES / "routing").glob("umpire*.py"),
        *(SOURCES / "store").glob("*ingest*.py"),
        SOURCES / "store" / "growing_content.py",
        SOURCES / "sources" / "growing.py",
        SOURCES / "wire" / "growing_file.py",
    ]
)
EXEMPT = {
    # how old an ingest is that was there before this process, once: a wrong age lasts until it grows (test_ingests)
    "known_ingest.py",
    # a file of the ingest says when it began, as containerd's does; nobody reads it
    "ingest_writer.py",
}
MODULES = [one for one in MODULES if one.name not in EXEMPT]
TIME_OF_DAY = {"time", "time_ns", "now", "utcnow", "today", "gmtime", "localtime", "CLOCK_REALTIME"}
CLOCK_MODULES = {"time", "datetime", "calendar", "email"}


def readings(source: str) -> Iterator[str]:
    """What in a module reads the time of day, or the time stamps of files, which are times of day."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in {"st_mtime", "st_ctime", "st_mtime_ns", "st_ctime_ns"}:
                yield node.attr
            root = names.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
            if root.partition(".")[0] in CLOCK_MODULES and node.attr in TIME_OF_DAY:
                yield f"{root}.{node.attr}"
        elif isinstance(node, ast.Name):
            module, _, name = names.get(node.id, "").rpartition(".")
            if module in CLOCK_MODULES and name in TIME_OF_DAY:
                yield f"{module}.{name}"


@pytest.mark.parametrize("module", MODULES, ids=[str(one.relative_to(SOURCES)) for one in MODULES])
def test_the_time_of_day_is_not_read(module: Path) -> None:
    assert not [*readings(module.read_text())]


def test_the_list_of_modules_is_not_empty() -> None:
    names = {one.name for one in MODULES}
    assert {"asker.py", "umpire.py", "pulls.py", "dht_claims.py", "umpire_server.py", "ingest_directory.py"} <= names


@pytest.mark.parametrize(
    "source",
    [
        "import time\nx = time.time()",
        "from time import time as t\nx = t()",
        "import datetime as d\nx = d.datetime.now()\ny = d.time",
        "from datetime import datetime\nx = datetime.now()",
        "import os\nx = os.stat('.').st_mtime",
    ],
)
def test_a_reading_is_found(source: str) -> None:
    assert [*readings(source)]


def test_monotonic_time_is_none() -> None:
    assert not [*readings("import asyncio, time\nx = time.monotonic()\ny = asyncio.get_running_loop().time()")]
