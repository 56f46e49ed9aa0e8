"""Memory of a node through which a lot was relayed: what a transfer leaks, twenty gigabytes would show."""

from __future__ import annotations

from pathlib import Path

from bench.fleet import nodes
from bench.layouts import NAME, REGISTRY, LayoutWriter, empty
from bench.measure import GIB, anonymous_mib, download, rss_mib
from bench.table import Figure

RELAYED_GIB = 20
BLOB_BYTES = GIB
AT_MOST_SECONDS = 300.0  # it takes some thirty; a machine that is this slow measures something else


def figures(directory: Path, gib: int = RELAYED_GIB, blob_bytes: int = BLOB_BYTES) -> list[Figure]:
    """A node without content relays one blob again and again."""
    writer = LayoutWriter(directory / "holder")
    layer = writer.sparse_blob(blob_bytes)
    manifest = writer.image("sparse", [layer])
    with nodes([writer.root, empty(directory / "relay")]) as (holder, relay):
        holder.wait_metric("speil_provided_keys", 3)
        relay.wait_for(f"/v2/{NAME}/manifests/{manifest}?ns={REGISTRY}")
        before = _memory(relay.pid)
        seconds = cpu = 0.0
        size = 0
        while size < gib * GIB:
            got = download(relay.host, relay.port, f"/v2/{NAME}/blobs/{layer['digest']}?ns={REGISTRY}", [relay.pid])
            seconds, cpu, size = seconds + got.seconds, cpu + got.cpu_seconds[0], size + got.size_bytes
            if seconds > AT_MOST_SECONDS:
                raise TimeoutError(f"{size >> 30} GiB took {seconds:.0f} s")
        after = _memory(relay.pid)
    speed = f"{size / seconds / 1e9:.2f} · {cpu / (size / GIB):.2f}"
    return [
        Figure("RSS of the relay before", before),
        Figure(f"RSS after {gib} GiB relayed", after, goal="< 64 MiB", spegel="38 MiB after 24 GiB"),
        Figure(f"these {gib} GiB: GB/s · CPU-s/GiB of the relay", speed),
    ]


def _memory(pid: int) -> str:
    return f"{rss_mib(pid):.0f} MiB ({anonymous_mib(pid):.0f} anonymous)"
