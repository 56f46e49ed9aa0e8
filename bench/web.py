"""What the pages cost: a node with its page open and closed, and `speil region web` over a thousand nodes.

The thousand are stubs (`web_stub`) in a process of their own: what is measured is the page's process, which reads them,
and the event stream that a browser gets. The nodes of the node's page are real.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlsplit

from bench.fleet import free_ports, nodes
from bench.layouts import empty, many_images
from bench.measure import cpu_seconds, percentile, rss_mib
from bench.table import Figure
from bench.web_stub import host

NODES = 1000
WATCH_SECONDS = 20.0
SETTLE_SECONDS = 15.0  # the first counts of 200 images, while the page opens
START_SECONDS_MAX = 120.0


class Events:
    """A stream of events, read in a thread: their bytes, and the last data of each name."""

    def __init__(self, url: str, cookie: str = "") -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        self._connection.request("GET", parts.path, headers={"Cookie": cookie} if cookie else {})
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.status
        self.bytes, self.last = 0, dict[str, str]()
        self.looks: list[float] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(2)
        self._thread.join(10)
        self._connection.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the end of the stream
            self._read_lines()

    def _read_lines(self) -> None:
        name = ""
        while line := self._response.readline().decode():
            self.bytes += len(line)
            kind, _, value = line.rstrip("\n").partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                self.last[name] = value
                if name == "summary" and (seconds := json.loads(value)["look_seconds"]):
                    self.looks.append(seconds)


def figures(directory: Path, count: int = NODES) -> list[Figure]:
    """The node's page, then the page of all regions."""
    return [*_node_page(directory), *_regions(count)]


def _node_page(directory: Path) -> list[Figure]:
    layout, _ = many_images(directory / "many")
    with nodes([layout, empty(directory / "empty")]) as (node, _):
        url = f"http://{node.host}:{node.ports.metrics}"
        node.wait_metric("spegel_advertised_image_tags", 1)
        time.sleep(SETTLE_SECONDS)
        before = rss_mib(node.pid)
        closed = _cpu_percent(node.pid)
        for name in ("", "node.js", "show.js", "page.css"):
            with urllib.request.urlopen(f"{url}/debug/web/{name}", timeout=10) as response:
                response.read()
        page = Events(f"{url}/debug/web/events")
        time.sleep(SETTLE_SECONDS)
        size, opened = page.bytes, _cpu_percent(node.pid)
        rate = (page.bytes - size) / WATCH_SECONDS
        while_open = rss_mib(node.pid)
        page.close()
        time.sleep(2)
        again = _cpu_percent(node.pid)
        after = rss_mib(node.pid)
    return [
        Figure(
            "node's page, 200 images: CPU % closed · open · closed again", f"{closed:.2f} · {opened:.2f} · {again:.2f}",
            goal="open ≤ closed + 1",
        ),
        Figure("the same: bytes a second of its events, nothing happening", f"{rate:.0f}"),
        Figure("the same: RSS never opened · open · closed", f"{before:.0f} · {while_open:.0f} · {after:.0f} MiB"),
    ]  # fmt: skip


def _regions(count: int) -> list[Figure]:
    with _stubs(count) as urls, _region_web(urls) as (pid, url):
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        with urllib.request.build_opener(jar).open(url, timeout=60) as response:
            assert response.status == 200
        cookie = "; ".join(f"{one.name}={one.value}" for one in jar.cookiejar)
        page = Events(f"{url.partition('?')[0]}events", cookie)
        deadline = time.monotonic() + START_SECONDS_MAX
        while len(page.looks) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        cpu, size, looks = cpu_seconds([pid]), page.bytes, len(page.looks)
        time.sleep(WATCH_SECONDS)
        cpu, size = cpu_seconds([pid]) - cpu, page.bytes - size
        seconds, memory = sorted(page.looks[1:]), rss_mib(pid)
        assert json.loads(page.last["summary"])["nodes"] == count
        every = WATCH_SECONDS / max(len(page.looks) - looks, 1)
        page.close()
    looked = max(len(page.looks) - looks, 1)
    took, pause = f"{percentile(seconds, 50):.2f} / {seconds[-1]:.2f}", f"{every:.1f} · {100 * cpu / WATCH_SECONDS:.0f}"
    return [
        Figure(f"region web, {count} nodes: seconds of a look p50/max", took),
        Figure("the same: seconds between two looks · CPU % of a core", pause),
        Figure("the same: KiB of events for a look · RSS", f"{size / looked / 1024:.0f} · {memory:.0f} MiB"),
    ]


def _cpu_percent(pid: int) -> float:
    before = cpu_seconds([pid])
    time.sleep(WATCH_SECONDS)
    return 100 * (cpu_seconds([pid]) - before) / WATCH_SECONDS


@contextmanager
def _stubs(count: int) -> Iterator[list[str]]:
    (port,) = free_ports("0.0.0.0", 1)
    argv = [sys.executable, "-m", "bench.web_stub", str(port), str(count)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield [f"http://{host(number)}:{port}" for number in range(count)]
        finally:
            process.terminate()


@contextmanager
def _region_web(urls: list[str]) -> Iterator[tuple[int, str]]:
    """The process and its URL."""
    argv = [sys.executable, "-m", "speil", "region", "web", "--no-browser", f"--metrics-urls={','.join(urls)}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        match = re.match(r"all regions: (\S+)", process.stdout.readline())
        assert match
        try:
            yield process.pid, match[1]
        finally:
            process.terminate()
