"""Attacks on a running node, beside one pull a second of its own: what each costs it, and what it cost before.

Real nodes: the one under attack, and an honest one that holds what is pulled through it. For each attack they are
started anew. SPEIL_BENCH_HOSTILE_SECONDS is how long each attack lasts, SPEIL_BENCH_HOSTILE_ATTACKS takes some of them.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.fleet import BenchNode, nodes
from bench.layouts import NAME, REGISTRY, LayoutWriter
from bench.measure import percentile, rss_mib
from bench.table import Figure

SECONDS = float(os.environ.get("SPEIL_BENCH_HOSTILE_SECONDS", "20"))
ONLY = tuple(filter(None, os.environ.get("SPEIL_BENCH_HOSTILE_ATTACKS", "").split(",")))
AFTER_SECONDS = 30.0  # in which the memory must be released
AFTER_MIB_MAX = 8.0
LAYERS = 24  # pulled in turn
LAYER_BYTES, BLOB_BYTES = 96 << 10, 12 << 20
PULL_SECONDS_MAX = 10.0
_PROBE_EVERY_SECONDS = 0.05
_TARGET = "100 % · ≤ 100 ms · < 128 MiB · ≤ +8 MiB · ≤ 10"


@dataclass(frozen=True, slots=True)
class Attack:
    """`name` is its program's; `before` what was seen when speil had no bounds (measured elsewhere, once)."""

    name: str
    title: str
    before: str
    attackers: int = 1  # addresses
    first_pulls: bool = False  # the node has pulled nothing before, so no peer has proved itself


ATTACKS = (
    Attack("nothing", "no attack: the machine and the bench itself", "–"),
    Attack("zero-messages", "zero-length DHT messages on four streams", "/livez 20–44 s"),
    Attack("copies", "100 copies of a provider × 4,096 places", "0.4–10 s a message"),
    Attack("question", "a question with 4,096 places", "0.4–10 s a message"),
    Attack("empty-peers", "4 MiB of empty peers, asked and unasked", "0.4–10 s a message, 170 MiB"),
    Attack("stream-churn", "streams opened and reset before identify", "12,600 tasks, 5–11 s"),
    Attack("unfinished", "100 streams with unfinished 4 MiB messages", "57 → 488 MiB, never given back"),
    Attack("layers", "a manifest of {} layers from a peer", "9 s, 190 MiB"),
    Attack("connections", "2,048 connections from one address", "containerd and probes get RST"),
    Attack("half-open", "200 half-open libp2p connections, two addresses", "nobody can join", 2),
    Attack("unread-blobs", "1,024 unread blob requests", "the node's own containerd gets 404"),
    Attack("idle-metrics", "6,000 idle connections to the metrics port", "none closed"),
    Attack("malformed", "malformed request lines", "38 kB → 1.1 MB of tracebacks"),
    Attack("records", "records of three identities", "the store is full of theirs", 3),
    Attack("liars", "heads of six liars beside one honest holder", "8 of 8 pulls fail", 6, first_pulls=True),
    Attack("invented", "answers with invented addresses", "1,946 dials from one GET"),
)  # fmt: skip
FILES_TITLE = "FIFO and device as blobs, deep JSON as index.json, at the start"


@dataclass(slots=True)
class Seen:
    """What was measured during one attack."""

    pulls: int = 0
    failed: list[str] = field(default_factory=list)
    probes_ms: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


class Watch:
    """Pulls, probes and looks at the node's memory, each in a thread of its own, while the context lasts."""

    def __init__(self, node: BenchNode, keys: list[str]) -> None:
        self.seen = Seen()
        self._node, self._keys, self._stop = node, itertools.cycle(keys), threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._pull, self._probe, self._weigh)]

    def __enter__(self) -> Seen:
        for thread in self._threads:
            thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pull(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            key = next(self._keys)
            self.seen.pulls += 1
            if failure := pull(self._node, key):
                self.seen.failed.append(failure)
            self._stop.wait(max(0.0, 1 - (time.monotonic() - started)))

    def _probe(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            status, _ = get(self._node, "/livez")
            elapsed = (time.perf_counter() - started) * 1e3
            self.seen.probes_ms.append(elapsed if status == 200 else PULL_SECONDS_MAX * 1e3)
            self._stop.wait(_PROBE_EVERY_SECONDS)

    def _weigh(self) -> None:
        while not self._stop.wait(0.1):
            self.seen.peak_mib = max(self.seen.peak_mib, rss_mib(self._node.pid))


def get(node: BenchNode, path: str) -> tuple[int, bytes]:
    """As this node's containerd asks, on a new connection; status 0 where there is no answer."""
    client = http.client.HTTPConnection(node.host, node.port, timeout=PULL_SECONDS_MAX)
    try:
        client.request("GET", path, headers={"User-Agent": "containerd/bench"})
        answer = client.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        client.close()


def pull(node: BenchNode, digest: str) -> str:
    """One layer through the node; why it failed, or nothing."""
    status, body = get(node, f"/v2/{NAME}/blobs/{digest}?ns={REGISTRY}")
    if status != 200:
        return str(status)
    return "" if f"sha256:{hashlib.sha256(body).hexdigest()}" == digest else "wrong bytes"


def figures(directory: Path) -> list[Figure]:
    """A line for each attack; the first says what stands in its columns."""
    found = [
        Figure(
            "attack",
            "own pulls · /livez p99 · RSS peak · RSS after it, to idle · log lines a minute of an attacker",
            "before",
            "target",
        )
    ]
    for attack in ATTACKS:
        if not ONLY or attack.name in ONLY:
            found.append(_under(attack, directory / attack.name))
    if not ONLY or "files" in ONLY:
        found.append(_odd_files(directory / "files"))
    return found


def _under(attack: Attack, directory: Path) -> Figure:
    honest, own = LayoutWriter(directory / "honest"), LayoutWriter(directory / "own")
    keys = [honest.random_blob(LAYER_BYTES, number)["digest"] for number in range(LAYERS)]
    honest.image("all", [{"digest": key, "size": LAYER_BYTES, "mediaType": "application/x"} for key in keys])
    blob = own.random_blob(BLOB_BYTES, 1000)["digest"]
    own.image("own", [{"digest": blob, "size": BLOB_BYTES, "mediaType": "application/x"}])
    with nodes([own.root, honest.root]) as (node, holder):
        holder.wait_metric("speil_provided_keys", LAYERS)
        if attack.first_pulls:
            node.wait_metric("speil_provider_records", LAYERS)
        else:
            for key in keys:
                _wait_for_pull(node, key)
        idle, lines = rss_mib(node.pid), _other_lines(node)
        world = {
            "host": node.host, "registry": node.ports.registry, "router": node.ports.router,
            "metrics": node.ports.metrics, "seconds": SECONDS, "keys": keys, "blob": blob,
        }  # fmt: skip
        argv = [sys.executable, "-m", "bench.hostile_attack", attack.name, json.dumps(world)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            if attack.first_pulls:
                node.wait_metric("speil_provider_records", LAYERS * (1 + attack.attackers // 2))
            with Watch(node, keys) as seen:
                steps, _ = process.communicate()
        if process.returncode or not int(steps):
            return Figure(attack.title, f"the attack did not run ({process.returncode})", attack.before, _TARGET)
        after = _after(node, idle)
        minutes = max(1.0, SECONDS / 60)
        told = (_other_lines(node) - lines) / minutes / attack.attackers
    return Figure(f"{attack.title} ({steps.strip()} steps)", _shown(seen, after, f"{told:.0f}"), attack.before, _TARGET)


def _shown(seen: Seen, after: str, lines: str) -> str:
    percent = 100 * (seen.pulls - len(seen.failed)) / max(seen.pulls, 1)
    p99 = percentile(sorted(seen.probes_ms), 99)
    return f"{percent:.0f} % of {seen.pulls} · {p99:.0f} ms · {seen.peak_mib:.0f} MiB · {after} · {lines}"


def _wait_for_pull(node: BenchNode, digest: str) -> None:
    deadline = time.monotonic() + 60
    while failure := pull(node, digest):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{digest} can't be pulled: {failure}\n{node.log.read_text()[-2000:]}")
        time.sleep(0.1)


def _after(node: BenchNode, idle: float) -> str:
    """How far from idle the node's memory is when it is back, or when its time for that is over."""
    deadline = time.monotonic() + AFTER_SECONDS
    while (more := rss_mib(node.pid) - idle) > AFTER_MIB_MAX and time.monotonic() < deadline:
        time.sleep(0.5)
    return f"{more:+.0f} MiB"


def _other_lines(node: BenchNode) -> int:
    """Log lines but those of the node's own pulls."""
    lines = node.log.read_text(errors="replace").splitlines()
    return sum("asked by the node" not in line or "source=peer" not in line for line in lines)


def _odd_files(directory: Path) -> Figure:
    """What lies in the store is no attack that goes on: the node has to start, and to serve the rest."""
    writer = LayoutWriter(directory / "odd")
    good = writer.random_blob(LAYER_BYTES, 1)["digest"]
    blobs = writer.root / "blobs" / "sha256"
    os.mkfifo(blobs / ("ab" * 32))
    with suppress(OSError):  # a device needs rights
        os.mknod(blobs / ("cd" * 32), 0o20666, os.makedev(1, 5))
    index = writer.root / "index.json"
    index.write_text("[" * 200_000)
    with nodes([writer.root]) as (node,):
        started, idle = node.wait_ready(), rss_mib(node.pid)
        with Watch(node, [good]) as seen:
            ends = time.monotonic() + min(SECONDS, 10)
            while time.monotonic() < ends:
                for odd in ("ab", "cd"):
                    get(node, f"/v2/{NAME}/blobs/sha256:{odd * 32}?ns={REGISTRY}")
                index.unlink(missing_ok=True)
                os.mkfifo(index)
                time.sleep(1)
                index.unlink()
                index.write_text("[" * 200_000)
                time.sleep(1)
        after = _after(node, idle)
        lines = sum("asked by the node" not in line for line in node.log.read_text().splitlines())
    name = f"{FILES_TITLE} (ready in {started:.1f} s)"
    return Figure(name, _shown(seen, after, str(lines)), "hangs, or ends, at each start", _TARGET)
