"""A containerd of the host that runs the image as a kubelet lets it run: read-only root, no capability, seccomp."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.requirements import tool_path
from tests.system.image.conftest import REFERENCE
from tests.system.lab.containerd import Containerd, ContainerdVersion
from tests.system.lab.namespaces import Namespace

SNAPSHOTTER = "native"  # overlayfs does not lie on overlayfs, which the machine's disk may be
CALL_SECONDS_MAX = 120
# what containerd gives a container that asks for nothing
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip


class Host(Namespace):
    """The machine's own network. `ip netns exec` mounts /sys anew, and runc finds no cgroup there."""

    path: str = os.environ["PATH"]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process; containerd finds its shim in the PATH."""
        return subprocess.Popen(argv, env={**os.environ, "PATH": self.path}, **options)


class Runtime:
    """containerd, ctr and runc."""

    def __init__(self, version: ContainerdVersion, directory: Path) -> None:
        host = Host("host", "127.0.0.1")
        self.ctr = "ctr"
        if version.major == 2:
            self.ctr = str(tool_path("ctr"))
            object.__setattr__(host, "path", f"{tool_path('containerd-shim-runc-v2').parent}:{os.environ['PATH']}")
        self.containerd = Containerd(version, host, directory)
        self._names: list[str] = []

    async def start(self, archive: Path) -> None:
        """Start containerd and take in the image."""
        await self.containerd.start()
        self.call("images", "import", "--snapshotter", SNAPSHOTTER, str(archive))

    def argv(
        self,
        name: str,
        *command: str,
        network: Namespace | None = None,
        mounts: Mapping[Path, str] | None = None,
        flags: Sequence[str] = (),
    ) -> list[str]:
        """`ctr run` of a container that is removed when it ends; `mounts` are folders with "ro" or "rw"."""
        self._names.append(name)
        options = ["--rm", "--snapshotter", SNAPSHOTTER, "--read-only", "--seccomp", *flags]
        for capability in DEFAULT_CAPABILITIES:
            options += ["--cap-drop", capability]
        if network is not None:
            options += ["--with-ns", f"network:/run/netns/{network.name}"]
        for path, mode in (mounts or {}).items():
            options += ["--mount", f"type=bind,src={path},dst={path},options=rbind:{mode}"]
        return [self.ctr, "-a", str(self.containerd.socket), "-n", "k8s.io", "run", *options, REFERENCE, name, *command]

    def run(self, name: str, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        argv = self.argv(name, *command, **options)
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=CALL_SECONDS_MAX)

    def call(self, *arguments: str) -> str:
        """A call of ctr."""
        argv = [self.ctr, "-a", str(self.containerd.socket), "-n", "k8s.io", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=CALL_SECONDS_MAX)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """End containers and containerd."""
        for name in self._names:
            for arguments in (("task", "rm", "--force", name), ("container", "rm", name)):
                argv = [self.ctr, "-a", str(self.containerd.socket), "-n", "k8s.io", *arguments]
                subprocess.run(argv, capture_output=True, check=False, timeout=CALL_SECONDS_MAX)
        self.containerd.close()
        shutil.rmtree(self.containerd.directory, ignore_errors=True)
