"""The node's page in Chromium, on a node in this process: hostile names, the keyboard, hidden pages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from speil.region.policy import Layer
from speil.routing.memory import MemoryMesh
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.browser.checks import SCREENSHOTS, is_quiet, keep
from tests.browser.chromium import chromium
from tests.shell.mirrors import mirror
from tests.shell.pages import pages

pytestmark = pytest.mark.requires("chromium", "axe-core")

NAME = "reg.test/app:1"
IMAGE = random_image(6)
MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'


async def test_the_page_shows_the_node_and_takes_names_for_text(tmp_path: Path) -> None:
    mesh = MemoryMesh()
    async with (
        mirror(mesh, zone="z1") as holder,
        mirror(mesh) as node,
        pages(node) as shown,
        chromium(tmp_path) as browser,
        browser.page() as page,
    ):
        await holder.hold(IMAGE, NAME)
        await node.hold(random_image(7), "reg.test/own:1")
        for number in range(60):
            node.recent.add(
                "GET", f"sha256:{number:064x}", "peer", MARKUP, "node", image=f"reg.test/{MARKUP}", size=1 << 20,
                seconds=0.5, peer=str(holder.router.local.peer_id),
            )  # fmt: skip
        shown.border.rejected(Layer.HTTP, MARKUP, f"it sent {MARKUP}")
        await page.open(f"{shown.url}/debug/web/measure?image={NAME}")
        await page.wait_text("#link", "live")
        await page.wait_text("#who", "eu (from setting)")
        await page.wait_text("#leader", "no leader is elected")
        await page.wait_text("#images", "reg.test/own:1")
        await page.wait_text("#peers", "z1: 1 peer")
        await page.wait_text("#requests", MARKUP)
        assert "2.0 MiB/s" in await page.text("#requests")
        assert await page.run("document.querySelectorAll('#requests tr').length") == 50
        assert MARKUP in await page.text("#kept")
        assert "--region" in await page.text("#kept"), "with the remedy"
        assert await page.run("document.querySelectorAll('main img, main script').length") == 0
        assert await page.run("window.hacked ?? null") is None

        # the keyboard alone: the skip link, the image, the box, the button
        assert await page.run("document.getElementById('image').value") == NAME, "of Spegel's URL"
        await page.run("document.getElementById('image').focus()")
        await page.press("Enter", 13)
        await page.wait_text("#trace-status", "A pull gets all that is missing here from peers")
        parts = await page.text("#parts")
        assert parts.count("containerd gets it through speil from 127.0.0.1 in zone z1") == 6
        assert "MiB/s" in parts, "measured"
        await page.run("document.getElementById('image').value = ''; document.getElementById('image').focus()")
        await page.type(f"reg.test/app@{MARKUP}")
        await page.press("Enter", 13)
        await page.wait_text("#trace-status", "not a digest")
        assert await page.run("window.hacked ?? null") is None
        await page.run("document.getElementById('image').value = ''; document.getElementById('image').focus()")
        await page.type(NAME)
        await page.press("Enter", 13)
        await page.wait("!document.getElementById('trace-result').hidden")
        page.faults = [fault for fault in page.faults if "400 (Bad Request)" not in fault]
        await is_quiet(page)
        light, dark, narrow = await keep(page, "node-with-hostile-names")
        assert light.read_bytes() != dark.read_bytes(), "dark is another page"
        assert narrow.parent == SCREENSHOTS


async def test_a_hidden_page_has_no_stream_and_a_seen_one_has(tmp_path: Path) -> None:
    async with mirror(MemoryMesh()) as node, pages(node) as shown, chromium(tmp_path) as browser:
        async with browser.page() as page:
            await page.open(f"{shown.url}/debug/web/")
            await page.wait_text("#link", "live")
            assert len(shown.pages.streams) == 1
            # what a browser does to a page whose tab is left
            hide = "Object.defineProperty(document, 'hidden', {value: HIDDEN, configurable: true}); "
            hide += "document.dispatchEvent(new Event('visibilitychange'))"
            await page.run(hide.replace("HIDDEN", "true"))
            await page.wait_text("#link", "paused")
            await eventually(lambda: not len(shown.pages.streams), what="its stream is closed")
            node.recent.add("GET", f"sha256:{1:064x}", "store", "served", "node", image=f"reg.test/{time.time()}")
            await page.run(hide.replace("HIDDEN", "false"))
            await page.wait_text("#link", "live")
            await page.wait_text("#requests", "served")
            await is_quiet(page)
        await eventually(lambda: not len(shown.pages.streams), what="a closed page has none")


async def test_another_sites_page_can_start_no_trace_and_frame_nothing(tmp_path: Path) -> None:
    """A page under another name, as with DNS rebinding, and a page of another origin that sends a form."""
    mesh = MemoryMesh()
    async with (
        mirror(mesh) as holder,
        mirror(mesh) as node,
        pages(node) as shown,
        pages(holder) as other,
        chromium(tmp_path) as browser,
        browser.page() as page,
    ):
        await holder.hold(IMAGE, NAME)
        await page.open(f"{other.url}/debug/web/")
        await page.wait_text("#link", "live")
        # that page's own policy would stop it: a page of an attacker has none
        await page.call("Page.setBypassCSP", enabled=True)
        await page.open(f"{other.url}/debug/web/")
        trace = f"{shown.url}/debug/web/measure?image={NAME}"
        answer = f"fetch({trace!r}, {{method: 'POST', mode: 'no-cors'}}).then((found) => found.type)"
        await page.run(f"{answer}.catch((error) => 'blocked')")
        assert holder.sample("speil_served_bytes_total", client="peer") == 0
        await page.run(
            f"{{const form = document.createElement('form'); form.method = 'post'; form.action = {trace!r};"
            " document.body.append(form); form.submit(); true}"
        )
        await page.wait_text("body", "another page sent this request")
        assert holder.sample("speil_served_bytes_total", client="peer") == 0
        await page.open(f"{other.url}/debug/web/")
        await page.run(
            f"new Promise((done) => {{const frame = document.createElement('iframe'); frame.onload = done;"
            f" frame.src = '{shown.url}/debug/web/'; document.body.append(frame);}})"
        )
        assert len(shown.pages.streams) == 0, "in a frame it does not run"
