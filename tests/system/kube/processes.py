"""Electors as processes: speil's, and client-go's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.requirements import ROOT, tool_path
from tests.system.kube.cluster import HOST, KubeCluster, Pod

STOP_SECONDS_MAX = 10


class ElectorProcess:
    """A running elector; what it says are JSON lines in a file."""

    def __init__(self, identity: str, argv: list[str], log: Path) -> None:
        self.identity, self._log = identity, log
        with log.open("wb") as file:
            # both speak on their own stream, and only one of them on each
            self._process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has said so far; lines of the Go runtime that are no JSON are left out."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, **fields: Any) -> bool:
        """Whether a line has these fields."""
        return any(fields.items() <= line.items() for line in self.lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and wait; its exit code."""
        self._process.terminate()
        return self._process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.wait()


@contextmanager
def electors(
    cluster: KubeCluster, pod: Pod, namespace: str, lease: str, count: int, *, region: str = "r"
) -> Iterator[list[ElectorProcess]]:
    """speil's electors n0, n1, …; none is left afterwards."""
    started = [speil_elector(cluster, pod, namespace, lease, f"n{number}", region=region) for number in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()


def speil_elector(
    cluster: KubeCluster, pod: Pod, namespace: str, lease: str, identity: str, *, region: str = "r"
) -> ElectorProcess:
    """speil's elector in a process."""
    argv = [
        sys.executable,
        "-m",
        "tests.system.kube.elector",
        str(pod.folder),
        HOST,
        str(cluster.port),
        namespace,
        lease,
    ]
    return ElectorProcess(identity, [*argv, region, identity], pod.folder / f"{identity}.log")


def go_elector(cluster: KubeCluster, pod: Pod, namespace: str, lease: str, identity: str) -> ElectorProcess:
    """client-go's elector, with the pod's token."""
    token = (pod.folder / "token").read_text()
    kubeconfig = cluster.write_kubeconfig(pod.folder / "kubeconfig", token)
    argv = [str(tool_path("go-election")), "--kubeconfig", str(kubeconfig), "--namespace", namespace, "--name", lease]
    return ElectorProcess(identity, [*argv, "--identity", identity], pod.folder / f"{identity}.log")
