"""One node of the demo: a `speil registry` process on a loopback address of its own, with an OCI-layout store.

As in a cluster, only the names of the Lease tell its region.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from speil.http1.client import HttpClient, HttpError
from speil.region.naming import lease_of

START_SECONDS_MAX = 60.0  # a node starts in one second; with ten processes on each core it takes half a minute
STOP_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 16 << 20  # of a metrics page, which has some hundreds of KiB
UPLOADS_MAX = 256  # enough for three to each of eighty nodes
_POLL_SECONDS = 0.05


class NodeError(Exception):
    """A node did not start; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that every node uses on its own address."""

    registry: int
    router: int
    metrics: int


class Node:
    """A node and its process. `flags` are added to its command line."""

    def __init__(
        self, region: str, name: str, host: str, directory: Path, ports: Ports, lease_file: Path, *flags: str
    ) -> None:
        self.region, self.name, self.host = region, name, host
        self.layout, self.log = directory / self.name / "layout", directory / self.name / "log"
        self.url, self.metrics_url = f"http://{host}:{ports.registry}", f"http://{host}:{ports.metrics}"
        self._ports, self._lease_file, self._flags = ports, lease_file, flags
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; it has been started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process; `wait_ready` waits until it serves."""
        data = self.layout.parent / "data"
        data.mkdir(parents=True)
        lease = lease_of(self.region)
        argv = [
            sys.executable, "-m", "speil", "registry", "--log-format=text",
            "--store-kind=oci-layout", f"--oci-layout-path={self.layout}", f"--data-dir={data}",
            f"--registry-addr={self.host}:{self._ports.registry}",
            f"--router-addr={self.host}:{self._ports.router}",
            f"--metrics-addr={self.host}:{self._ports.metrics}",
            "--bootstrap-kind=file", f"--lease-file={self._lease_file}",
            f"--leader-election-name={lease.name}", f"--leader-election-namespace={lease.namespace}",
            # on loopback all nodes have one source address, so they count as one peer
            f"--uploads-per-peer-max={UPLOADS_MAX}", f"--uploads-max={UPLOADS_MAX}",
            "--node-platforms=linux/amd64",  # what the demo's client pulls, on any machine
            *self._flags,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )

    async def wait_ready(self, http: HttpClient) -> None:
        """Wait until `/readyz` returns 200. Raises NodeError with the end of the log."""
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not await self._ready(http):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NodeError(f"{self.name} is not ready after {START_SECONDS_MAX:.0f} s:\n{self.log_tail()}") from None

    async def _ready(self, http: HttpClient) -> bool:
        if self._process is not None and self._process.returncode is not None:
            raise NodeError(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")
        try:
            answer = await http.request("GET", f"{self.url}/readyz", answer_bytes_max=ANSWER_BYTES_MAX)
            return answer.status == 200
        except HttpError:
            return False

    async def metric(self, http: HttpClient, name: str) -> float:
        """The sum of the samples with that name on the node's metrics page. Raises HttpError."""
        text = (await http.request("GET", f"{self.metrics_url}/metrics", answer_bytes_max=ANSWER_BYTES_MAX)).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        )

    async def kill(self) -> None:
        """End the process with SIGKILL: the Lease is not released."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL where that does not help."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
