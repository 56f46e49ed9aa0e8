"""What every page has to pass: accessibility in both colour schemes, no fault, no more width than a narrow screen."""

from __future__ import annotations

from pathlib import Path

from scripts import fetch_axe

from tests.browser.chromium import Page
from tests.requirements import ROOT

SCREENSHOTS = ROOT / "dist" / "screenshots"  # kept as CI's output
NARROW = 360
# The rules of WCAG 2.2 A and AA, and axe's best practices.
_AXE = """axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map((one) =>
  `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(' | ')}`))"""


async def keep(page: Page, name: str) -> list[Path]:
    """Check the page in light and dark and on a narrow screen; the screenshots."""
    files = []
    for scheme in ("light", "dark"):
        await page.look(dark=scheme == "dark")
        await is_accessible(page)
        files.append(SCREENSHOTS / f"{name}-{scheme}.png")
        await page.screenshot(files[-1])
    await page.look(width=NARROW, height=740)
    width = await page.run("document.documentElement.scrollWidth")
    assert width <= NARROW, f"{name} is {width} px wide on a screen of {NARROW}"
    files.append(SCREENSHOTS / f"{name}-narrow.png")
    await page.screenshot(files[-1])
    await page.look()
    return files


async def is_accessible(page: Page) -> None:
    """No violation of axe-core's rules."""
    if not await page.run("'axe' in window"):
        # by the protocol, not by the page: its Content-Security-Policy lets in no script from elsewhere
        await page.run(fetch_axe.fetch().read_text() + "; true")
    found = await page.run(_AXE, 90)
    assert found == [], "\n".join(found)


async def is_quiet(page: Page) -> None:
    """No error of the page's scripts, and no violation of its policy."""
    assert page.faults == []
