"""Generated pages are up to date, and what the docs name is there."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import generate_metrics_page
from scripts.generate_settings_page import PAGE, page

from speil.observe.metrics import Metrics
from speil.testing.declared_series import declare_all
from tests.shell.one_way import table

ROOT = Path(__file__).parent.parent.parent


def test_the_settings_page_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_the_metrics_page_is_what_the_declarations_say() -> None:
    assert generate_metrics_page.PAGE.read_text() == generate_metrics_page.page(), "run `make docs`"


def test_every_series_is_documented_and_every_documented_series_exists() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    metrics = Metrics("1")
    declare_all(metrics)
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in metrics.registry.collect()
        if family.name.startswith(("speil_", "spegel_", "http_"))
    } - {"speil_build"}
    documented = set(re.findall(r"`((?:speil|spegel|http)_[a-z_]+)", text))
    assert ours - documented == set()
    assert documented - ours == set()


def test_the_architecture_page_shows_the_way_that_a_tracer_walks() -> None:
    assert table() in (ROOT / "docs" / "architecture.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_each_code_block_is_closed_and_no_row_of_a_table_is_there_twice() -> None:
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        lines = file.read_text().splitlines()
        assert sum(line.lstrip().startswith("```") for line in lines) % 2 == 0, f"{file.name}: a block is open"
        section, seen = "", set[tuple[str, str]]()
        for line in lines:
            if line.startswith(("#", "**")):
                section = line
            # a table of settings repeats its head, and some flags, in the section of each command
            if line.startswith("| ") and file.name not in ("settings.md", "faults.md", "benchmarks.md"):
                row = (section, line.split(" | ")[0])
                assert row not in seen, f"{file.name}: {row}"
                seen.add(row)


def test_files_that_contributing_names_are_there() -> None:
    named = re.findall(r"`((?:src|tests|docs|charts|scripts)/[\w/.-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
