"""Generated pages are up to date, and what the docs name is there."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.generate_settings_page import PAGE, page

from speil.observe.metrics import Metrics
from speil.testing.declared_series import declare_all

ROOT = Path(__file__).parent.parent.parent


def test_the_settings_page_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


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


def test_links_between_pages_lead_somewhere() -> None:
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"
