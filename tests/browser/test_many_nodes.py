"""The page of all regions over a thousand nodes: grouped by zone, with a bounded number of things on it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from bench.web_stub import REGIONS, ZONES, host

from speil.overview.flows import TREE_NODES_MAX
from tests.browser.checks import SCREENSHOTS, is_quiet
from tests.browser.chromium import chromium
from tests.browser.test_regions import region_web
from tests.shell.nodes import free_ports

pytestmark = pytest.mark.requires("chromium")

NODES = 1000


async def test_a_thousand_nodes_are_grouped_by_zone(tmp_path: Path) -> None:
    (port,) = free_ports("0.0.0.0", 1)
    stubs = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.web_stub", str(port), str(NODES), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert stubs.stdout is not None
        assert await stubs.stdout.readline() == b"ready\n"
        flags = [f"--metrics-urls={','.join(f'http://{host(number)}:{port}' for number in range(NODES))}"]
        async with chromium(tmp_path) as browser, region_web(flags) as url, browser.page() as page:
            await page.open(url)
            await page.wait_text("#looked", f"{NODES} nodes", 60)
            await page.wait(f"document.querySelectorAll('#map circle.node').length === {NODES}")
            assert await page.run("document.querySelectorAll('#map rect.zone').length") == REGIONS * ZONES
            assert await page.run("document.querySelectorAll('#map circle.leader').length") == REGIONS
            await page.wait("document.querySelectorAll('#map .edge').length > 0")
            edges = await page.run("document.querySelectorAll('#map .edge').length")
            assert edges <= REGIONS * ZONES**2, "between zones, not between nodes"
            assert await page.run("document.querySelectorAll('#map *').length") < 3 * NODES
            zeros = await page.run("[...document.querySelectorAll('#map .border-zero')].map((one) => one.textContent)")
            assert set(zeros) == {"0 B"}
            assert await page.run("document.querySelectorAll('#crossings tr').length") == REGIONS * (REGIONS - 1)
            assert await page.run("document.querySelectorAll('#rollouts details').length") <= 20
            # a large roll-out is drawn when it is opened, and stays open
            assert await page.run("document.querySelectorAll('#rollouts li').length") == 0
            summary = await page.text("#rollouts summary")
            assert "getting it from a node that has it" in summary
            await page.run("document.querySelector('#rollouts summary').click()")
            await page.wait("document.querySelectorAll('#rollouts li').length > 50")
            looked = await page.run("document.querySelector('#looked time').dataset.at")
            await page.wait(f"document.querySelector('#looked time').dataset.at !== {looked!r}", 90)
            assert await page.run("document.querySelectorAll('#rollouts li').length") <= 2 * TREE_NODES_MAX
            await is_quiet(page)
            await page.screenshot(SCREENSHOTS / "regions-thousand-nodes.png")
    finally:
        stubs.terminate()
        await stubs.wait()
