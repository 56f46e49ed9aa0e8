"""A node of the fault lab: what can be done to it, and how it is put right again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from speil.testing.eventually import eventually
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.namespaces import Namespace, get_inside, inside
from tests.system.lab.node import Node

ASK_SECONDS_MAX = 5.0
START_SECONDS_MAX = 60.0
LAYER_FETCH_BUFFER = 1 << 20  # what containerd 2.x asks for in parallel where its configuration sets it
TBF_QUEUE_BYTES = 200_000
_TRANSFER = "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FaultNode(Node):
    """Asked from inside its own namespace, so that it answers whatever happens to the network."""

    def __init__(
        self, namespace: Namespace, version: ContainerdVersion, directory: Path, *flags: str, multipart: bool = False
    ) -> None:
        super().__init__(namespace, version, directory, *flags)
        self.address = namespace.address
        self.is_dirty = False  # speil has to be started anew before the next case
        self._frozen = False
        if multipart:
            config = self.containerd.config_file
            buffer = (
                f"[plugins.'io.containerd.transfer.v1.local']\n  concurrent_layer_fetch_buffer = {LAYER_FETCH_BUFFER}"
            )
            config.write_text(config.read_text().replace(_TRANSFER, f"{buffer}\n{_TRANSFER}"))
            assert buffer in config.read_text()

    def get(self, url: str) -> tuple[int, bytes]:
        """GET from inside the namespace; status 0 where nobody answers."""
        return get_inside(self.namespace, url, seconds_max=ASK_SECONDS_MAX)

    def head(self, target: str) -> int:
        """Status of a HEAD at its own speil."""
        request = urllib.request.Request(f"http://127.0.0.1:5000{target}", method="HEAD")
        try:
            with inside(self.namespace), _opener.open(request, timeout=ASK_SECONDS_MAX) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def state(self) -> dict[str, Any]:
        """The JSON of /debug/state."""
        status, body = self.get("http://127.0.0.1:9090/debug/state")
        assert status == 200, f"{self.address} does not answer"
        found: dict[str, Any] = json.loads(body)
        return found

    @property
    def peer_id(self) -> str:
        """Its libp2p id."""
        return str(self.state()["peer_id"])

    def has_met(self, *others: FaultNode) -> bool:
        """Whether it is ready and they are in its routing table."""
        return self.ready() and {other.peer_id for other in others} <= {peer["peer"] for peer in self.state()["peers"]}

    @property
    def sent_bytes(self) -> int:
        """What has left its network card."""
        with inside(self.namespace):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        (line,) = (line for line in lines if line.strip().startswith("eth0:"))
        return int(line.split(":")[1].split()[8])

    # --- what goes wrong --------------------------------------------------------------------------------

    def limit_rate(self, rate: str) -> None:
        """Let its network card send no faster than `rate` (as tc says it: 48mbit, 80kbit); "" for no limit."""
        tc = ["tc", "-n", self.namespace.name, "qdisc"]
        if rate:
            shape = ["tbf", "rate", rate, "burst", "16kb", "limit", str(TBF_QUEUE_BYTES)]
            subprocess.run([*tc, "replace", "dev", "eth0", "root", *shape], check=True, capture_output=True, timeout=30)
        else:
            subprocess.run([*tc, "del", "dev", "eth0", "root"], check=False, capture_output=True, timeout=30)

    def freeze(self) -> None:
        """Stop speil where it stands; its connections stay."""
        self.speil.signal(signal.SIGSTOP)
        self._frozen = True

    def take_descriptors(self) -> None:
        """Leave speil no file descriptor that it does not have already."""
        pid = self.speil.pid
        taken = {int(one) for one in os.listdir(f"/proc/{pid}/fd")}
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        free = next(number for number in itertools.count() if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        self.is_dirty = True

    def mount(self, *arguments: str) -> None:
        """Mount something where speil alone sees it: in its mount namespace, which ends with it."""
        subprocess.run(
            ["nsenter", "-t", str(self.speil.pid), "-m", "mount", *arguments],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        self.is_dirty = True

    async def restart_speil(self) -> None:
        """SIGTERM, and start it again."""
        await asyncio.to_thread(self.speil.stop)
        await self.start_speil()

    # --- and is put right -------------------------------------------------------------------------------

    def calm(self) -> None:
        """Undo what was done to its processes and its network card."""
        if self._frozen:
            self.speil.signal(signal.SIGCONT)
            self._frozen = False
        self.limit_rate("")

    async def revive(self) -> None:
        """Start what does not run, or has to run anew."""
        if not self.containerd.process.running:
            await self.containerd.start()
        if self.is_dirty:
            await asyncio.to_thread(self.speil.stop)
        if not self.speil.running:
            await self.start_speil()
        self.is_dirty = False
        await eventually(
            lambda: self.metric("speil_store_available") == 1,
            timeout_seconds=START_SECONDS_MAX,
            what=f"{self.address} has its store",
        )
