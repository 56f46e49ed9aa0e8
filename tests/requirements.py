"""What tests need beyond Python: how to see it, and the command that installs it.

A test names its requirements with the `requires` marker; where one is missing the test is skipped with the command, or
fails where SPEIL_REQUIRE_ALL=1 (CI), unless SPEIL_MAY_SKIP has its name (a list with commas).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts import fetch_axe

from tests.cluster.lab.cgroups import ROOT as ROOT_OF_CGROUPS
from tests.cluster.lab.cgroups import has_memory, is_unified

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Requirement:
    """One need."""

    name: str
    is_met: Callable[[], bool]
    install: str


@functools.cache
def _tool(name: str, script_name: str) -> Path:
    script = ROOT / "scripts" / script_name
    done = subprocess.run([sys.executable, script, "--print-path", name], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def tool_path(name: str) -> Path:
    """Where a program of scripts/build_go_tools.py is, or would be."""
    return _tool(name, "build_go_tools.py")


def kube_tool_path(name: str) -> Path:
    """Where a program of scripts/build_kube_tools.py is, or would be."""
    return _tool(name, "build_kube_tools.py")


def _has_axe() -> bool:
    """One small file, which is fetched where the registry can be reached."""
    try:
        fetch_axe.fetch()
    except OSError:
        return False
    return True


def _has_program(name: str) -> bool:
    return shutil.which(name) is not None


def _can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"speil-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=True)
    return made


def _can_run_nodes() -> bool:
    """Kubelets with containerd, runc, CNI and a packet filter, as tests/cluster starts them."""
    programs = ("iptables", "ipset", "nsenter", "unshare", "runc", "docker-registry")
    tools = [tool_path(name) for name in ("containerd", "ctr", "containerd-shim-runc-v2", "pause")]
    kube = [
        "etcd", "kubectl", "helm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet",
        "kube-proxy", "kube-router",
    ]  # fmt: skip
    return (
        _can_make_namespaces()
        and has_memory()
        and Path("/usr/lib/cni/bridge").exists()
        and all(map(shutil.which, programs))
        and all(path.exists() for path in (*tools, *map(kube_tool_path, kube)))
    )


REQUIREMENTS = {
    one.name: one
    for one in (
        Requirement("namespaces", _can_make_namespaces, "run as root; apt-get install iproute2"),
        Requirement("tun", lambda: Path("/dev/net/tun").exists(), "modprobe tun, or give the container /dev/net/tun"),
        Requirement("containerd-1", lambda: shutil.which("containerd") is not None, "apt-get install containerd runc"),
        Requirement(
            "containerd-2",
            lambda: tool_path("containerd").exists(),
            "install Go 1.25 or newer; .venv/bin/python scripts/build_go_tools.py containerd",
        ),
        Requirement(
            "containerd-2-runtime",
            lambda: all(tool_path(name).exists() for name in ("ctr", "containerd-shim-runc-v2")),
            "install Go 1.25 or newer; .venv/bin/python scripts/build_go_tools.py ctr containerd-shim-runc-v2",
        ),
        Requirement("skopeo", lambda: shutil.which("skopeo") is not None, "apt-get install skopeo"),
        Requirement("runc", lambda: shutil.which("runc") is not None, "apt-get install runc"),
        Requirement("registry", lambda: shutil.which("docker-registry") is not None, "apt-get install docker-registry"),
        Requirement(
            "buildah",
            lambda: os.geteuid() == 0 and shutil.which("buildah") is not None,
            "run as root; apt-get install buildah",
        ),
        Requirement(
            "loop-device",
            lambda: Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None,
            "modprobe loop; apt-get install e2fsprogs",
        ),
        Requirement(
            "conformance",
            lambda: tool_path("conformance").exists(),
            "install Go 1.25 or newer; .venv/bin/python scripts/build_go_tools.py conformance",
        ),
        Requirement(
            "actionlint",
            lambda: tool_path("actionlint").exists(),
            "install Go 1.26 or newer; .venv/bin/python scripts/build_go_tools.py actionlint",
        ),
        Requirement(
            "interop-peer",
            lambda: tool_path("interop-peer").exists(),
            "install Go 1.25 or newer; .venv/bin/python scripts/build_go_tools.py interop-peer",
        ),
        Requirement(
            "kubernetes",
            lambda: all(kube_tool_path(name).exists() for name in ("kube-apiserver", "etcd")),
            "python scripts/build_kube_tools.py",
        ),
        Requirement(
            "cluster",
            _can_run_nodes,
            "run as root, where cgroups have memory limits;"
            " apt-get install iptables ipset containernetworking-plugins runc docker-registry;"
            " python scripts/build_go_tools.py; python scripts/build_kube_tools.py",
        ),
        Requirement(
            "cgroup2",
            lambda: is_unified() or is_unified(ROOT_OF_CGROUPS / "unified"),
            "mkdir /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        Requirement("helm", lambda: kube_tool_path("helm").exists(), "python scripts/build_kube_tools.py helm"),
        Requirement(
            "kubectl", lambda: kube_tool_path("kubectl").exists(), "python scripts/build_kube_tools.py kubectl"
        ),
        Requirement(
            "chromium", lambda: shutil.which("chromium") is not None, "apt-get install --no-install-recommends chromium"
        ),
        Requirement("axe-core", _has_axe, "python scripts/fetch_axe.py"),
        *(
            Requirement(shell, functools.partial(_has_program, shell), f"apt-get install {shell}")
            for shell in ("bash", "zsh", "fish", "mandoc", "groff")
        ),
        Requirement("promtool", lambda: shutil.which("promtool") is not None, "apt-get install prometheus"),
        Requirement(
            "go-election", lambda: tool_path("go-election").exists(), "python scripts/build_go_tools.py go-election"
        ),
        Requirement(
            "py-libp2p",
            lambda: (ROOT / "tests/interop/py/.venv/bin/python").exists(),
            "apt-get install gcc libgmp-dev python3-dev; .tools/bin/uv sync --project tests/interop/py",
        ),
    )
}
