"""speil nodes for the bench: real `speil registry` processes, each with an address of its own and an OCI-layout store.

Node n listens on 127.32.0.n, or on a host of its own (`veth`); all on the same ports.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tests.system.lab.namespaces import Namespace, inside

from bench.cgroup import LIMIT_MIB, MemoryLimit
from bench.measure import cpu_seconds

_START_SECONDS_MAX = 60.0
_STOP_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.005


# how speil is started, and what its store is called where it runs ("": as here)
_program: ContextVar[tuple[list[str], str]] = ContextVar("_program", default=([sys.executable, "-m", "speil"], ""))


@contextmanager
def program(command: list[str], layout: str) -> Iterator[None]:
    """For as long as this lasts, nodes are started with another command."""
    before = _program.set((command, layout))
    try:
        yield
    finally:
        _program.reset(before)


@dataclass(frozen=True, slots=True)
class Ports:
    """The same on every node."""

    registry: int
    router: int
    metrics: int


_VETH_PORTS = Ports(5000, 5001, 9090)  # each host has its own


class BenchNode:
    """One running node."""

    def __init__(
        self, number: int, layout: Path, ports: Ports, extra: list[str], *, on: Namespace | None = None, first: str = ""
    ) -> None:
        """`on` is the host that it runs on, `first` the address of the node that it joins; None and "": loopback."""
        self._on = on
        self.host, self.port, self.layout = on.address if on else f"127.32.0.{number}", ports.registry, layout
        self.ports, self._metrics_port = ports, ports.metrics
        self.log = layout.parent / f"node{number}.log"
        command, layout_seen = _program.get()
        argv = [
            *command, "registry", "--log-format=text", "--store-kind=oci-layout",
            f"--oci-layout-path={layout_seen or layout}",
            f"--registry-addr={self.host}:{ports.registry}",
            f"--router-addr={self.host}:{ports.router}",
            f"--metrics-addr={self.host}:{ports.metrics}",
            "--bootstrap-kind=static", f"--static-bootstrap-peers=/ip4/{first or '127.32.0.1'}/tcp/{ports.router}",
            # a lookup of the bench must not depend on the 20 ms that a busy machine may miss
            "--mirror-resolve-timeout=1s", *extra,
        ]  # fmt: skip
        self._limit = MemoryLimit(str(number)) if LIMIT_MIB else None
        if self._limit is not None:
            argv = self._limit.argv(argv)
        self.started = time.perf_counter()
        with self.log.open("wb") as log, self._network():
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._process.pid
        self.ready_seconds = self.cpu_seconds_when_ready = 0.0

    def wait_ready(self) -> float:
        """Seconds from the start of the process to the first 200 of `/readyz`."""
        return self.wait_for("/readyz")

    def wait_for(self, path: str, port: int | None = None) -> float:
        """Seconds from the start of the process until `path` answers 200."""
        url = f"http://{self.host}:{port or self.port}{path}"
        deadline = time.monotonic() + _START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the node ended:\n{self.log.read_text()[-2000:]}")
            try:
                with self._network(), urllib.request.urlopen(url, timeout=5) as response:
                    if response.status == 200:
                        return time.perf_counter() - self.started
            except (urllib.error.URLError, OSError):
                time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"{url} does not answer 200:\n{self.log.read_text()[-2000:]}")

    def metric(self, name: str) -> float:
        """The sum over a series' label sets."""
        url = f"http://{self.host}:{self._metrics_port}/metrics"
        with self._network(), urllib.request.urlopen(url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def wait_metric(self, name: str, least: float) -> float:
        """Seconds from the start of the process until the series reaches `least`."""
        deadline = time.monotonic() + _START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.metric(name) >= least:
                return time.perf_counter() - self.started
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"{name} is {self.metric(name)}, not {least}")

    def _network(self) -> AbstractContextManager[None]:
        return inside(self._on) if self._on else nullcontext()

    def stop(self) -> None:
        """End the process, kindly first."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._limit is not None:
            self._limit.close(self.host)


@contextmanager
def nodes(layouts: list[Path], *extra: list[str], on: Sequence[Namespace] = ()) -> Iterator[list[BenchNode]]:
    """One node for each layout, ready; `extra` are further flags of the first, the second, … `on`: their hosts."""
    ports = _VETH_PORTS if on else Ports(*free_ports("127.32.0.1", 3))
    running: list[BenchNode] = []
    try:
        for number, layout in enumerate(layouts, 1):
            flags = extra[number - 1] if number <= len(extra) else []
            host, first = (on[number - 1], on[0].address) if on else (None, "")
            running.append(BenchNode(number, layout, ports, flags, on=host, first=first))
        for node in running:
            node.ready_seconds = node.wait_ready()
            node.cpu_seconds_when_ready = cpu_seconds([node.pid])
        yield running
    finally:
        for node in running:
            node.stop()


def free_ports(host: str, count: int) -> list[int]:
    """Ports that are free on `host` now."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((host, 0))).getsockname()[1] for _ in range(count)]
