"""How soon a node of the image is ready, beside one of the environment: both on the same store, taking turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.fleet import nodes, program
from bench.layouts import empty
from bench.table import Figure

ROOT = Path(__file__).resolve().parent.parent
STARTS = 5
BUILD_SECONDS_MAX = 900


def image(directory: Path) -> list[Figure]:
    """The image's trees are unpacked, and speil starts in them as runc would start it: in another root."""
    if os.geteuid() != 0:
        return [Figure("start → ready, in the image", "needs root")]
    root = directory / "root"
    _unpack(root)
    layout = empty(root / "layout")
    inside, outside, cpu_inside, cpu_outside = [], [], [], []
    for _ in range(STARTS):
        # containerd's content is a mount; here the store is a folder of the image's root
        with program(["chroot", str(root), "/usr/bin/speil"], "/layout"), nodes([layout]) as (node,):
            inside.append(node.ready_seconds)
            cpu_inside.append(node.cpu_seconds_when_ready)
        with nodes([layout]) as (node,):
            outside.append(node.ready_seconds)
            cpu_outside.append(node.cpu_seconds_when_ready)
    return [
        Figure("start → ready, in the image", _median(inside), f"{_median(outside)} (the environment)"),
        Figure("CPU until ready, in the image", _median(cpu_inside), f"{_median(cpu_outside)} (the environment)"),
    ]


def _unpack(root: Path) -> None:
    trees = root.parent / "trees"
    subprocess.run(
        [sys.executable, "-m", "scripts.image", "--trees", str(trees)],
        cwd=ROOT, check=True, capture_output=True, timeout=BUILD_SECONDS_MAX,
    )  # fmt: skip
    (trees / "base").rename(root)
    subprocess.run(["cp", "-a", f"{trees}/application/.", str(root)], check=True, timeout=BUILD_SECONDS_MAX)


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s"
