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
from pathlib import Path

from bench.crowd import crowd_of
from bench.fleet import BenchNode, nodes
from bench.layouts import NAME, REGISTRY, LayoutWriter, empty, gigabyte, many_images
from bench.measure import anonymous_mib, cpu_seconds, download, latencies_ms, percentile, rss_mib
from bench.mesh import measure_mesh
from bench.nginx import PROXY, PROXY_UNBUFFERED, STATIC, available, nginx
from bench.table import Figure

IDLE_SECONDS = 60.0
ROUNDS = 3
REQUESTS = 300
MESH_NODES = 60
RELAYS = 3  # what containerd downloads at a time
CROWD, CROWD_BLOB_BYTES = 500, 6 << 20


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
        Figure("RSS, idle, empty store", idle, goal="< 56 MiB"),
        Figure(f"RSS, 200 images, {blobs} blobs announced", many, goal="< 72 MiB"),
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
        ours = _best(lambda: _transfer(node.host, node.port, path, [node.pid]))
        times = latencies_ms(node.host, node.port, manifest_path, REQUESTS)
        theirs, their_times = "nginx is not installed", "–"
        if available():
            with nginx(directory / "nginx", node.host, STATIC.format(root=layout)) as server:
                theirs = _best(lambda: _transfer(server.host, server.port, file, server.pids))
                their_times = _milliseconds(latencies_ms(server.host, server.port, small, REQUESTS))
    return [
        Figure("1 GiB blob, own store: GB/s · CPU-s/GiB", ours, theirs + " (sendfile)", "≥ nginx · ≤ nginx"),
        Figure("manifest, own store: ms p50/p99", _milliseconds(times), their_times + " (static)", "≤ 1/3"),
    ]


def remote(directory: Path) -> list[Figure]:
    """The same from another node's store, by splice and by copying, next to nginx as a proxy in front of nginx."""
    layout, layer, manifest = gigabyte(directory / "big")
    layouts = [layout, empty(directory / "splices"), empty(directory / "copies")]
    with nodes(layouts, [], [], ["--zero-copy=false"]) as (holder, asker, copier):
        holder.wait_metric("speil_provided_keys", 3)
        path, manifest_path = _paths(layer, manifest)
        for node in (asker, copier):
            node.wait_for(manifest_path)
            node.wait_for(path.replace(layer, _config_of(layout, manifest)))
        ours = _best(lambda: _transfer(asker.host, asker.port, path, [asker.pid]))
        copied = _best(lambda: _transfer(copier.host, copier.port, path, [copier.pid]))
        times = latencies_ms(asker.host, asker.port, manifest_path, REQUESTS)
        busy = _latencies_beside_relays(asker, path, manifest_path)
        unknown = _unknown_ms(asker)
        proxied = _proxied(directory, holder, layout, layer)
    return [
        Figure("1 GiB blob, from a peer: GB/s · CPU-s/GiB of the relay", ours, proxied, "≥ 2.3× proxy_pass · ≤ 0.42"),
        Figure("the same with --zero-copy=false", copied),
        Figure("manifest, from a peer: ms p50/p99", _milliseconds(times), goal="≤ 4/9"),
        Figure(f"the same beside {RELAYS} relays of 1 GiB: ms p50/p99", _milliseconds(busy)),
        Figure("unknown digest → 404: ms p50/p99", _milliseconds(unknown), goal="≤ 4/10"),
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
    """CPU of three idle nodes over a minute."""
    with nodes([empty(directory / f"empty{number}") for number in range(3)]) as fleet:
        pids = [node.pid for node in fleet]
        before = cpu_seconds(pids)
        time.sleep(IDLE_SECONDS)
        percent = (cpu_seconds(pids) - before) / IDLE_SECONDS / len(pids) * 100
    return [Figure("idle CPU, each of 3 nodes, over a minute", f"{percent:.2f} %", goal="≤ 0.5 %")]


def mesh(directory: Path) -> list[Figure]:
    """DHT requests and lookups over real connections, all nodes in one process."""
    del directory
    rpc, lookup = asyncio.run(measure_mesh(MESH_NODES, REQUESTS))
    return [
        Figure("DHT request and answer, both ends in one process: µs p50/p99", _microseconds(rpc)),
        Figure(f"lookup that asks others, {MESH_NODES} nodes in one process: ms p50/p99", _milliseconds(lookup)),
    ]


def _paths(layer: str, manifest: str) -> tuple[str, str]:
    return f"/v2/{NAME}/blobs/{layer}?ns={REGISTRY}", f"/v2/{NAME}/manifests/{manifest}?ns={REGISTRY}"


def _config_of(layout: Path, manifest: str) -> str:
    document = json.loads((layout / "blobs/sha256" / manifest.removeprefix("sha256:")).read_text())
    return str(document["config"]["digest"])


def _transfer(host: str, port: int, path: str, pids: list[int]) -> tuple[float, float]:
    got = download(host, port, path, pids)
    return got.gigabytes_per_second, got.cpu_seconds_per_gib


def _best(measure: Callable[[], tuple[float, float]]) -> str:
    """The fastest of some rounds: what else runs on the machine only ever slows a round down."""
    speed, cpu = max(measure() for _ in range(ROUNDS))
    return f"{speed:.2f} · {cpu:.2f}"


def _proxied(directory: Path, holder: BenchNode, layout: Path, layer: str) -> str:
    """nginx → nginx on the same file: with nginx's default buffering, and without."""
    if not available():
        return "nginx is not installed"
    file, found = f"/blobs/sha256/{layer.removeprefix('sha256:')}", []
    with nginx(directory / "origin", holder.host, STATIC.format(root=layout)) as origin:
        for name, location in (("proxy_pass", PROXY), ("unbuffered", PROXY_UNBUFFERED)):
            configured = location.format(upstream=f"{origin.host}:{origin.port}")
            with nginx(directory / name, holder.host, configured) as proxy:
                best = _best(lambda proxy=proxy: _transfer(proxy.host, proxy.port, file, proxy.pids))  # type: ignore[misc]
                found.append(f"{best} (nginx {name})")
    return ", ".join(found)


def _latencies_beside_relays(node: BenchNode, path: str, manifest_path: str) -> list[float]:
    """Manifests, one after the other, while other clients download through the same node."""
    argv = [sys.executable, "-m", "speil.testing.crowd", node.host, str(node.port), path, str(RELAYS)]
    found: list[float] = []
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as relays:
        while relays.poll() is None:
            found += latencies_ms(node.host, node.port, manifest_path, 20, warmup=0)
    return sorted(found)


def _unknown_ms(node: BenchNode) -> list[float]:
    """Milliseconds to the 404 of digests that nobody has, a new one each time."""
    found = []
    with socket.create_connection((node.host, node.port)) as connection:
        for number in range(REQUESTS):
            digest = hashlib.sha256(number.to_bytes(4, "big")).hexdigest()
            start = time.perf_counter()
            connection.sendall(
                f"GET /v2/{NAME}/blobs/sha256:{digest}?ns={REGISTRY} HTTP/1.1\r\nHost: bench\r\n"
                "User-Agent: containerd/bench\r\n\r\n".encode()
            )
            answer = connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 404"):
                raise ConnectionError(f"expected a 404, got {answer[:80]!r}")
            found.append((time.perf_counter() - start) * 1e3)
    return sorted(found)


def _microseconds(values: list[float]) -> str:
    return f"{percentile(values, 50) * 1e3:.0f} / {percentile(values, 99) * 1e3:.0f}"


def _milliseconds(values: list[float]) -> str:
    return f"{percentile(values, 50):.2f} / {percentile(values, 99):.2f}"


CASES: dict[str, Callable[[Path], list[Figure]]] = {
    "memory": memory_and_start,
    "local": local,
    "remote": remote,
    "crowd": crowd,
    "mesh": mesh,
    "idle": idle,
}
