"""Where a node's memory goes: what each library adds to a fresh interpreter, and what running adds to all of them.

A library is weighed by importing it after those before it, so what two of them share counts for the first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from bench.fleet import nodes
from bench.layouts import empty
from bench.measure import anonymous_mib, rss_mib
from bench.table import Figure

PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("asyncio, with ssl", ("asyncio", "ssl", "hashlib")),
    ("what speil needs of the standard library beside", ("dataclasses", "json", "logging", "ipaddress", "tempfile")),
    ("h11 (HTTP, both ends)", ("h11",)),
    ("cryptography (Noise, identities)", (
        "cryptography.hazmat.primitives.asymmetric.ed25519",
        "cryptography.hazmat.primitives.asymmetric.x25519",
        "cryptography.hazmat.primitives.ciphers.aead",
        "cryptography.hazmat.primitives.serialization",
    )),
    ("protobuf", ("google.protobuf.message", "google.protobuf.descriptor_pool", "google.protobuf.internal.builder")),
    ("grpclib (containerd's API)", ("grpclib.client",)),
    ("prometheus_client", ("prometheus_client",)),
    ("speil's own modules", ("speil.cli.registry", "speil.daemon")),
)  # fmt: skip
REST_SECONDS = 2.0  # a node that says it is ready still writes down the last of its start
OVERVIEWS = 9  # the median of them

_WEIGH = """
import importlib, json, os, sys

def sizes():
    found = {}
    for line in open("/proc/self/smaps_rollup"):
        name, _, rest = line.partition(":")
        if name in ("Rss", "Anonymous"):
            found[name] = int(rest.split()[0])
    return found["Rss"], found["Anonymous"]

weighed = [sizes()]
for names in json.loads(sys.argv[1]):
    for name in names:
        importlib.import_module(name)
    weighed.append(sizes())
print(json.dumps(weighed))
"""


def weigh() -> list[tuple[float, float]]:
    """RSS and its anonymous part, MiB, of a bare interpreter and after each of PARTS."""
    argv = [sys.executable, "-c", _WEIGH, json.dumps([names for _, names in PARTS])]
    done = None
    for _ in range(2):  # the first run may have to compile
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done is not None
    return [(rss / 1024, anonymous / 1024) for rss, anonymous in json.loads(done.stdout)]


def figures(directory: Path) -> list[Figure]:
    """The interpreter, a line for each library, what the running node adds, the sum."""
    weighed = weigh()
    with nodes([empty(directory / "empty")]) as (node,):
        time.sleep(REST_SECONDS)
        running = (rss_mib(node.pid), anonymous_mib(node.pid))
    names = ["a bare interpreter", *(name for name, _ in PARTS)]
    steps = [weighed[0], *(_less(now, before) for before, now in pairwise(weighed))]
    found = [Figure(f"RSS of {names[0]}", _mib(steps[0]))]
    found += [Figure(f"+ {name}", _mib(step)) for name, step in zip(names[1:], steps[1:], strict=True)]
    found.append(Figure("+ running it, less what is given back when it has started", _mib(_less(running, weighed[-1]))))
    found.append(Figure("= a node that runs, idle, empty store", _mib(running), goal="≤ 42 MiB"))
    return [*found, _overview()]


def _overview() -> Figure:
    """How long a person waits for `speil --help`, beside an interpreter that does nothing."""
    ours, bare = _seconds("-m", "speil", "--help"), _seconds("-c", "pass")
    return Figure("`speil --help`", f"{ours * 1000:.0f} ms", f"{bare * 1000:.0f} ms (python -c pass)", goal="≤ 120 ms")


def _seconds(*arguments: str) -> float:
    taken = []
    for _ in range(OVERVIEWS):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[OVERVIEWS // 2]


def _less(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] - other[0], one[1] - other[1]


def _mib(sizes: tuple[float, float]) -> str:
    return f"{sizes[0]:.1f} MiB ({sizes[1]:.1f} anonymous)"
