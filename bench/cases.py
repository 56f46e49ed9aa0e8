"""The cases: each starts what it needs, measures speil and its baseline side by side, and cleans up."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.announce import figures as announce_figures
from bench.crowd import crowd_of
from bench.election import figures as election_figures
from bench.fleet import BenchNode, nodes
from bench.following import figures as following
from bench.herd import figures as herd
from bench.holder import NOTE as HOLDER_NOTE
from bench.holder import figures as holder
from bench.hostile import figures as hostile
from bench.image import image
from bench.imports import figures as imports
from bench.layouts import NAME, REGISTRY, LayoutWriter, empty, gigabyte, many_images
from bench.measure import (
    Download,
    anonymous_mib,
    cpu_seconds,
    download,
    latencies_ms,
    loopback_sent,
    percentile,
    rss_mib,
)
from bench.mesh import measure_mesh
from bench.nginx import PROXY, PROXY_UNBUFFERED, STATIC, available, nginx
from bench.relayed import figures as relayed
from bench.rollout import figures as rollout
from bench.table import Figure
from bench.web import figures as web

IDLE_SECONDS = 60.0
ROUNDS = 9
REQUESTS = 300
MESH_NODES = 60
RELAYS = 3  # what containerd downloads at a time
CROWD, CROWD_BLOB_BYTES = 500, 6 << 20
UNSHARED = "--share-wait=0"
_NO_NGINX = "nginx is not installed"


def memory_and_start(directory: Path) -> list[Figure]:
    """RSS of an idle node, and of one with 200 images; how soon both are ready."""
    with nodes([empty(directory / "empty")]) as (node,):
        ready_empty = node.wait_ready()
        idle = f"{rss_mib(node.pid):.0f} MiB ({anonymous_mib(node.pid):.0f} anonymous)"
    layout, blobs = many_images(directory / "many")
    with nodes([layout]) as (node,):
        ready = node.wait_ready()
        announced = node.wait_metric("speil_provided_keys", blobs)
        many = f"{rss_mib(node.pid):.0f} MiB ({anonymous_mib(node.pid):.0f} anonymous)"
    return [
        Figure("RSS, idle, empty store", idle, goal="< 56 MiB", spegel="36 MiB"),
        Figure(f"RSS, 200 images, {blobs} blobs announced", many, goal="< 72 MiB", spegel="43–47 MiB"),
        Figure("start → ready, empty store", f"{ready_empty:.2f} s"),
        Figure("start → ready, store of 200 images", f"{ready:.2f} s", goal="< 2 s"),
        Figure("start → all 200 images announced", f"{announced:.2f} s"),
    ]


def local(directory: Path) -> list[Figure]:
    """A 1 GiB blob and a manifest from the node's own store, next to nginx on the same files."""
    layout, layer, manifest = gigabyte(directory / "big")
    file = f"/blobs/sha256/{layer.removeprefix('sha256:')}"
    small = f"/blobs/sha256/{manifest.removeprefix('sha256:')}"
    with nodes([layout]) as (node,):
        path, manifest_path = _paths(layer, manifest)
        times = latencies_ms(node.host, node.port, manifest_path, REQUESTS)
        theirs, their_shares, their_times = _NO_NGINX, "–", "–"

        def from_node() -> Download:
            return download(node.host, node.port, path, [node.pid])

        if available():
            with nginx(directory / "nginx", node.host, STATIC.format(root=layout)) as server:
                ours, theirs_median = _median(from_node, lambda: download(server.host, server.port, file, server.pids))
                theirs, their_shares = f"{_speed(theirs_median)} (sendfile)", _shares(theirs_median)
                their_times = f"{_milliseconds(latencies_ms(server.host, server.port, small, REQUESTS))} (static)"
        else:
            (ours,) = _median(from_node)
    return [
        Figure(
            "1 GiB blob, own store: GB/s · CPU-s/GiB",
            _speed(ours),
            theirs,
            "≥ nginx · ≤ nginx",
            "2.3 · 0.27",
        ),
        Figure("the same: CPU-s/GiB of node · client", _shares(ours), their_shares),
        Figure("manifest, own store: ms p50/p99", _milliseconds(times), their_times, "≤ 1/3", "1.2–1.6 / 3–5"),
    ]


def remote(directory: Path) -> list[Figure]:
    """The same from another node's store, by splice and by copying, next to nginx as a proxy in front of nginx."""
    layout, layer, manifest = gigabyte(directory / "big")
    layouts = [layout, empty(directory / "splices"), empty(directory / "copies")]
    with nodes(layouts, [], [], ["--zero-copy=false", UNSHARED]) as (holder, asker, copier):
        holder.wait_metric("speil_provided_keys", 3)
        path, manifest_path = _paths(layer, manifest)
        for node in (asker, copier):
            node.wait_for(manifest_path)
            node.wait_for(path.replace(layer, _config_of(layout, manifest)))
        ours, copied = _median(
            lambda: download(asker.host, asker.port, path, [asker.pid, holder.pid]),
            lambda: download(copier.host, copier.port, path, [copier.pid, holder.pid]),
        )
        times = latencies_ms(asker.host, asker.port, manifest_path, REQUESTS)
        busy = _latencies_beside_relays(asker, path, manifest_path)
        unknown, unshared = _unknown_ms(asker, copier)
        proxied, their_shares = _proxied(directory, holder, layout, layer)
    with nodes([empty(directory / "alone")]) as (alone,):
        (lone,) = _unknown_ms(alone)
    with nodes([empty(directory / "alone, unshared")], [UNSHARED]) as (alone,):
        (lone_unshared,) = _unknown_ms(alone)
    return [
        Figure(
            "1 GiB blob, from a peer: GB/s · CPU-s/GiB of the relay",
            _speed(ours),
            proxied,
            "≥ 2.3× proxy_pass · ≤ 0.42",
            "0.54 · 1.9",
        ),
        Figure("the same: CPU-s/GiB of relay · holder · client", _shares(ours), their_shares),
        Figure("the same with --zero-copy=false", _speed(copied)),
        Figure("manifest, from a peer: ms p50/p99", _milliseconds(times), goal="≤ 4/9", spegel="2–4 / 6–9"),
        Figure(f"the same beside {RELAYS} relays of 1 GiB: ms p50/p99", _milliseconds(busy)),
        Figure("unknown digest → 404: ms p50/p99", _milliseconds(unknown), goal="≤ 4/10", spegel="2–4 / 7–10"),
        Figure(f"the same with {UNSHARED}", _milliseconds(unshared)),
        Figure("unknown digest → 404, one node alone: ms p50/p99", _milliseconds(lone), goal="≤ 3 ms more than below"),
        Figure(f"the same with {UNSHARED}", _milliseconds(lone_unshared)),
    ]


def crowd(directory: Path) -> list[Figure]:
    """500 clients at the same instant: from the node's own store, and through it from a peer."""
    writer = LayoutWriter(directory / "some")
    layer = writer.random_blob(CROWD_BLOB_BYTES, 1)
    path, manifest_path = _paths(layer["digest"], writer.image("crowd", [layer]))
    unbounded = [f"--uploads-max={2 * CROWD}", f"--uploads-per-peer-max={2 * CROWD}"]
    figures = []
    with nodes([writer.root, empty(directory / "empty")], unbounded) as (holder, asker):
        holder.wait_metric("speil_provided_keys", 3)
        asker.wait_for(manifest_path)
        for name, node in (("own store", holder), ("from a peer", asker)):
            done, probes, peak = crowd_of(node, path, CROWD)
            outcome = f"{done.served} · {peak:.0f} MiB · {percentile(probes, 50):.0f} / {probes[-1]:.0f} ms"
            title = f"{CROWD} clients at once, {name}: served · RSS · /livez p50/max"
            figures.append(Figure(title, outcome, goal=f"{CROWD} · < 128 MiB · < 100 ms"))
    return figures


def idle(directory: Path) -> list[Figure]:
    """CPU and traffic of three idle nodes over a minute; nothing else may use loopback meanwhile."""
    with nodes([empty(directory / f"empty{number}") for number in range(3)]) as fleet:
        pids = [node.pid for node in fleet]
        cpu, traffic = cpu_seconds(pids), loopback_sent()
        time.sleep(IDLE_SECONDS)
        per_node = IDLE_SECONDS * len(pids)
        percent = (cpu_seconds(pids) - cpu) / per_node * 100
        sent_bytes, packets = ((now - then) / per_node for now, then in zip(loopback_sent(), traffic, strict=True))
    return [
        Figure(
            "each of 3 nodes, over a minute: CPU · sent: bytes/s · packets/s",
            f"{percent:.2f} % · {sent_bytes:.0f} · {packets:.2f}",
            goal="≤ 0.5 % · ≤ 100 · ≤ 1",
            spegel="0.33 % · 40 · 0.5",
        )
    ]


def mesh(directory: Path) -> list[Figure]:
    """DHT requests and lookups over real connections, all nodes in one process."""
    del directory
    times = asyncio.run(measure_mesh(MESH_NODES, REQUESTS))
    return [
        Figure("DHT request and answer, both ends in one process: µs p50/p99", _microseconds(times.requests)),
        Figure(f"lookup that asks others, {MESH_NODES} nodes in one process: ms p50/p99", _milliseconds(times.lookups)),
        Figure(
            "new key → its record on another of 3 nodes: ms p50/p99",
            _milliseconds(times.news_of_three),
            goal="≤ 50",
            spegel="21 (36 at most)",
        ),
        Figure(f"the same, {MESH_NODES} nodes in one process: ms p50/p99", _milliseconds(times.news_of_all)),
    ]


def announce(directory: Path) -> list[Figure]:
    """What announcing costs a region, in virtual time."""
    del directory
    return announce_figures()


def _paths(layer: str, manifest: str) -> tuple[str, str]:
    return f"/v2/{NAME}/blobs/{layer}?ns={REGISTRY}", f"/v2/{NAME}/manifests/{manifest}?ns={REGISTRY}"


def _config_of(layout: Path, manifest: str) -> str:
    document = json.loads((layout / "blobs/sha256" / manifest.removeprefix("sha256:")).read_text())
    return str(document["config"]["digest"])


def _median(*measures: Callable[[], Download]) -> list[Download]:
    """The round of median speed of each. They take turns: a slow minute of the machine is no one's alone."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    ordered = (sorted(found, key=lambda got: got.gigabytes_per_second) for found in zip(*rounds, strict=True))
    return [found[ROUNDS // 2] for found in ordered]


def _speed(got: Download) -> str:
    """GB/s, and what the process that was asked used."""
    return f"{got.gigabytes_per_second:.2f} · {got.cpu_seconds_per_gib[0]:.2f}"


def _shares(got: Download) -> str:
    """What each process used."""
    return " · ".join(f"{cpu:.2f}" for cpu in got.cpu_seconds_per_gib)


def _proxied(directory: Path, holder: BenchNode, layout: Path, layer: str) -> tuple[str, str]:
    """nginx → nginx on the same file, with nginx's default buffering and without: speed, and each process's CPU."""
    if not available():
        return _NO_NGINX, "–"
    file, speeds, shares = f"/blobs/sha256/{layer.removeprefix('sha256:')}", [], []
    with nginx(directory / "origin", holder.host, STATIC.format(root=layout)) as origin:
        for name, location in (("proxy_pass", PROXY), ("unbuffered", PROXY_UNBUFFERED)):
            configured = location.format(upstream=f"{origin.host}:{origin.port}")
            with nginx(directory / name, holder.host, configured) as proxy:
                pids = [*proxy.pids, *origin.pids]
                (got,) = _median(lambda proxy=proxy, pids=pids: download(proxy.host, proxy.port, file, pids))  # type: ignore[misc]
                speeds.append(f"{_speed(got)} (nginx {name})")
                shares.append(f"{_shares(got)} ({name})")
    return ", ".join(speeds), ", ".join(shares)


def _latencies_beside_relays(node: BenchNode, path: str, manifest_path: str) -> list[float]:
    """Manifests, one after the other, while other clients download through the same node."""
    argv = [sys.executable, "-m", "speil.testing.crowd", node.host, str(node.port), path, str(RELAYS)]
    found: list[float] = []
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as relays:
        while relays.poll() is None:
            found += latencies_ms(node.host, node.port, manifest_path, 20, warmup=0)
    return sorted(found)


def _unknown_ms(*nodes: BenchNode) -> list[list[float]]:
    """Milliseconds to the 404 of digests that nobody has, a new one each time, from each node by turns."""
    found: list[list[float]] = [[] for _ in nodes]
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((node.host, node.port))) for node in nodes]
        for number in range(REQUESTS * len(nodes)):
            digest = hashlib.sha256(number.to_bytes(4, "big")).hexdigest()
            turn = number % len(nodes)
            connection = connections[turn]
            start = time.perf_counter()
            connection.sendall(
                f"GET /v2/{NAME}/blobs/sha256:{digest}?ns={REGISTRY} HTTP/1.1\r\nHost: bench\r\n"
                "User-Agent: containerd/bench\r\n\r\n".encode()
            )
            answer = connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 404"):
                raise ConnectionError(f"expected a 404, got {answer[:80]!r}")
            found[turn].append((time.perf_counter() - start) * 1e3)
    return [sorted(one) for one in found]


def _microseconds(values: list[float]) -> str:
    return f"{percentile(values, 50) * 1e3:.0f} / {percentile(values, 99) * 1e3:.0f}"


def _milliseconds(values: list[float]) -> str:
    return f"{percentile(values, 50):.2f} / {percentile(values, 99):.2f}"


def election(directory: Path) -> list[Figure]:
    """What a region costs the API server, by its size."""
    return election_figures()


class Case(NamedTuple):
    """The title of its section on the page, what measures it in a directory of its own, and a text below the table."""

    title: str
    measure: Callable[[Path], list[Figure]]
    note: str = ""


CASES: dict[str, Case] = {
    "memory": Case("Memory and start", memory_and_start),
    "image": Case("In the image", image),
    "imports": Case("Where the memory goes", imports),
    "relayed": Case("Memory after relaying", relayed),
    "local": Case("From the node's own store", local),
    "remote": Case("From a peer", remote),
    "rollout": Case("A staged roll-out", rollout),
    "herd": Case("All nodes at once", herd),
    "holder": Case("The holder of a blob, on veth", holder, HOLDER_NOTE),
    "following": Case("Following a download", following),
    "crowd": Case("A crowd at once", crowd),
    "mesh": Case("The mesh", mesh),
    "announce": Case("Announcing", announce),
    "election": Case("Election", election),
    "idle": Case("Idle", idle),
    "web": Case("The pages", web),
    "hostile": Case("Under attack", hostile),
}
