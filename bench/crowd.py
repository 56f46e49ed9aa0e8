"""A crowd against one node, and what the kubelet would see meanwhile."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

from bench.fleet import BenchNode
from bench.measure import rss_mib
from speil.testing.crowd import Crowd

_PAUSE_SECONDS = 0.02


def crowd_of(node: BenchNode, path: str, count: int) -> tuple[Crowd, list[float], float]:
    """What became of the clients, sorted milliseconds of `/livez` meanwhile, and the node's highest RSS in MiB."""
    argv = [sys.executable, "-m", "speil.testing.crowd", node.host, str(node.port), path, str(count)]
    probes, peak = [], 0.0
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            probes.append(_livez_ms(node))
            peak = max(peak, rss_mib(node.pid))
            time.sleep(_PAUSE_SECONDS)
        assert process.stdout is not None
        return Crowd(**json.load(process.stdout)), sorted(probes), peak


def _livez_ms(node: BenchNode) -> float:
    start = time.perf_counter()
    with socket.create_connection((node.host, node.port)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n")
        answer = connection.recv(1000)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"/livez: {answer[:80]!r}")
    return (time.perf_counter() - start) * 1e3
