"""The node that holds a blob, and the one that passes it on, on veth between network namespaces.

Each figure is taken in turns with nginx, which serves the same file from the same host.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.system.lab.namespaces import Namespace, inside

from bench.fleet import BenchNode, nodes
from bench.layouts import NAME, REGISTRY, LayoutWriter, empty
from bench.measure import GIB, Download, cpu_seconds, download, first_bytes_ms, percentile
from bench.nginx import PROXY_UNBUFFERED, STATIC, Nginx, available, nginx
from bench.table import Figure
from bench.veth import hosts, link_of

NOTE = """\
Measured once on the machine above, with six nodes that each ran containerd 2.4.2, Spegel 0.7.4, speil, and speil as it
was before its wake-ups and lookups were changed. All four took turns in one run (medians of five rounds):

| figure | speil before | speil | Spegel 0.7.4 | nginx |
|---|---|---|---|---|
| 1 GiB from a peer: CPU-s/GiB of holder · relay | 0.34 · 0.33 | 0.32 · 0.32 | 0.09 · 1.05 | 0.36 |
| the same: GB/s | 2.64 | 2.76 | 1.19 | 2.79 |
| the same, a client that takes 200 MB/s: CPU-s/GiB of holder · relay | 0.33 · 0.49 | 0.31 · 0.30 | 0.17 · 1.19 | 0.15 |
| 256 MiB on a link of 1 Gbit/s: CPU-s/GiB of holder · relay | 0.52 · 1.64 | 0.20 · 0.88 | 0.24 · 2.12 | 0.16 |
| five nodes pull 256 MiB at once: s, last · mean | 0.62 · 0.55 | 0.58 · 0.55 | 0.71 · 0.62 | 0.46 · 0.41 |
| the same: CPU-s/GiB of the holder | 0.38 | 0.34 | 0.15 | 0.33 |
| first byte of a peer's blob, new connections: ms p50 | 5.8 | 3.7 | 3.5 | – |
| first byte of a peer's blob, kept connections: ms p50 | 6.3 | 3.6 | 4.2 | – |

The machine did other work beside (load 20), which these processes took precedence over. On a quieter one the first byte
of speil came after 3.0 to 3.1 ms. Without a limit on the link both cores are busy, and the kernel charges the holder
with what it does for the receivers meanwhile. A receiver that is slow, as Spegel's relay, does more of that itself.
nginx serves a client directly there, without a relay."""
ROUNDS = 5
PULLERS = 5
BLOB_BYTES, PULLED_BYTES = 1 << 30, 256 << 20
FIRSTS, FIRST_BYTES = 50, 5 << 20  # larger than what is verified before it is passed on
LINK, LINK_BYTES = "1gbit", 256 << 20
_SECONDS_MAX = 120.0


def figures(directory: Path) -> list[Figure]:
    """A holder, five others, and nginx beside the holder and one of them."""
    if os.geteuid() != 0:
        return [Figure("the holder of a blob, on veth", "needs root")]
    if not available() or shutil.which("tc") is None:
        return [Figure("the holder of a blob, on veth", "needs nginx and tc")]
    writer = LayoutWriter(directory / "holder")
    sizes = (BLOB_BYTES, PULLED_BYTES, *[FIRST_BYTES] * FIRSTS)
    layers = [writer.random_blob(size, seed) for seed, size in enumerate(sizes, 1)]
    manifest = writer.image("holder", layers)
    blob, pulled, *firsts = (layer["digest"] for layer in layers)
    layouts = [writer.root, *(empty(directory / f"puller{number}") for number in range(PULLERS))]
    with ExitStack() as stack:
        holder_host, *puller_hosts = stack.enter_context(hosts(1 + PULLERS))
        with inside(holder_host):
            origin = stack.enter_context(
                nginx(directory / "origin", holder_host.address, STATIC.format(root=writer.root))
            )
        with inside(puller_hosts[0]):
            location = PROXY_UNBUFFERED.format(upstream=f"{origin.host}:{origin.port}")
            proxy = stack.enter_context(nginx(directory / "proxy", puller_hosts[0].address, location))
        holder, *pullers = stack.enter_context(nodes(layouts, on=[holder_host, *puller_hosts]))
        holder.wait_metric("speil_provided_keys", 2 + FIRSTS)
        lab = _Lab(holder, pullers, holder_host, puller_hosts, origin, proxy)
        for puller in pullers:
            puller.wait_for(f"/v2/{NAME}/manifests/{manifest}?ns={REGISTRY}")
        return [*_one(lab, blob), *_on_a_link(lab, pulled), *_many(lab, pulled), *_first_bytes(lab, firsts)]


class _Lab:
    """What runs, and where."""

    def __init__(
        self,
        holder: BenchNode,
        pullers: list[BenchNode],
        holder_host: Namespace,
        puller_hosts: list[Namespace],
        origin: Nginx,
        proxy: Nginx,
    ) -> None:
        self.holder, self.pullers = holder, pullers
        self.holder_host, self.puller_hosts = holder_host, puller_hosts
        self.origin, self.proxy = origin, proxy

    def from_peer(self, digest: str) -> Download:
        """A client of the first puller; CPU of the holder and of the puller."""
        node = self.pullers[0]
        with inside(self.puller_hosts[0]):
            return download(node.host, node.port, _path(digest), [self.holder.pid, node.pid])

    def from_nginx(self, digest: str) -> Download:
        """The same by nginx in front of nginx."""
        with inside(self.puller_hosts[0]):
            return download(self.proxy.host, self.proxy.port, _file(digest), [*self.origin.pids, *self.proxy.pids])


def _one(lab: _Lab, digest: str) -> list[Figure]:
    ours, theirs = _in_turns(lambda: lab.from_peer(digest), lambda: lab.from_nginx(digest))
    return [
        Figure("1 GiB from a peer: CPU-s/GiB of the holder", _cpu(ours, 0), f"{_cpu(theirs, 0)} (nginx)", "≤ 0.3"),
        Figure("the same: CPU-s/GiB of the relay", _cpu(ours, 1), f"{_cpu(theirs, 1)} (nginx unbuffered)"),
        Figure("the same: GB/s", _speed(ours), f"{_speed(theirs)} (nginx)"),
    ]


def _on_a_link(lab: _Lab, digest: str) -> list[Figure]:
    name = f"256 MiB from a peer, link of {LINK}: CPU-s/GiB of holder · relay"
    try:
        with link_of(lab.holder_host, LINK):
            ours, theirs = _in_turns(lambda: lab.from_peer(digest), lambda: lab.from_nginx(digest))
    except subprocess.CalledProcessError as error:
        return [Figure(name, f"no tbf here: {error.stderr.decode().strip()}")]
    return [Figure(name, f"{_cpu(ours, 0)} · {_cpu(ours, 1)}", f"{_cpu(theirs, 0)} · {_cpu(theirs, 1)} (nginx)")]


def _many(lab: _Lab, digest: str) -> list[Figure]:
    """All pullers at the same instant, each with a client of its own."""

    def by_speil() -> tuple[float, float, float]:
        targets = [
            (host, node.host, node.port, _path(digest))
            for host, node in zip(lab.puller_hosts, lab.pullers, strict=True)
        ]
        return _at_once(targets, [lab.holder.pid])

    def by_nginx() -> tuple[float, float, float]:
        origin = lab.origin
        return _at_once([(host, origin.host, origin.port, _file(digest)) for host in lab.puller_hosts], origin.pids)

    rounds = [(by_speil(), by_nginx()) for _ in range(ROUNDS)]
    ours, theirs = (
        [statistics.median(values) for values in zip(*found, strict=True)] for found in zip(*rounds, strict=True)
    )
    return [
        Figure(
            f"{PULLERS} nodes pull 256 MiB from one holder at once: s, last · mean",
            f"{ours[0]:.2f} · {ours[1]:.2f}",
            f"{theirs[0]:.2f} · {theirs[1]:.2f} (nginx, no relays)",
        ),
        Figure("the same: CPU-s/GiB of the holder", f"{ours[2]:.2f}", f"{theirs[2]:.2f} (nginx)", "≤ 0.3"),
    ]


def _first_bytes(lab: _Lab, digests: list[str]) -> list[Figure]:
    """Each digest is asked for once at a node, so that nothing is known but what the mesh has told it."""
    found = []
    for name, keep, ours, local in (("new connections", False, 1, "cold"), ("kept connections", True, 2, "kept")):
        remote, host = lab.pullers[ours], lab.puller_hosts[ours]
        with inside(host):
            peer = first_bytes_ms(remote.host, remote.port, [_path(one) for one in digests], keep=keep)
        with inside(lab.puller_hosts[0]):
            proxied = first_bytes_ms(lab.proxy.host, lab.proxy.port, [_file(one) for one in digests], keep=keep)
        with inside(lab.holder_host):
            own = first_bytes_ms(lab.holder.host, lab.holder.port, [_path(one) for one in digests], keep=keep)
        title = f"first byte of a peer's blob, {name}: ms p50/p99"
        found.append(Figure(title, _ms(peer), f"{_ms(proxied)} (nginx, {local})", "≤ 3.5"))
        found.append(Figure(f"the same from the own store, {name}", _ms(own)))
    return found


def _in_turns(*measures: Callable[[], Download]) -> list[list[Download]]:
    """All rounds of each."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [list(found) for found in zip(*rounds, strict=True)]


def _at_once(targets: list[tuple[Namespace, str, int, str]], pids: list[int]) -> tuple[float, float, float]:
    """Seconds of the last and of the mean download, and CPU-s/GiB of the processes that serve them."""
    seconds: list[float] = []

    def pull(client: Namespace, host: str, port: int, path: str) -> None:
        with inside(client):
            ready.wait(_SECONDS_MAX)
            start = time.perf_counter()
            download(host, port, path, [])
            seconds.append(time.perf_counter() - start)

    ready = threading.Barrier(len(targets))
    threads = [threading.Thread(target=pull, args=target) for target in targets]
    before = cpu_seconds(pids)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS_MAX)
    if len(seconds) < len(targets):
        raise TimeoutError(f"{len(targets) - len(seconds)} of {len(targets)} downloads did not end")
    used = (cpu_seconds(pids) - before) / (len(targets) * PULLED_BYTES / GIB)
    return max(seconds), statistics.mean(seconds), used


def _path(digest: str) -> str:
    return f"/v2/{NAME}/blobs/{digest}?ns={REGISTRY}"


def _file(digest: str) -> str:
    return f"/blobs/sha256/{digest.removeprefix('sha256:')}"


def _cpu(found: list[Download], which: int) -> str:
    return f"{statistics.median(one.cpu_seconds_per_gib[which] for one in found):.2f}"


def _speed(found: list[Download]) -> str:
    return f"{statistics.median(one.gigabytes_per_second for one in found):.2f}"


def _ms(values: list[float]) -> str:
    return f"{percentile(values, 50):.2f} / {percentile(values, 99):.2f}"
