"""Build, from the Go module proxy, what tests and CI need and no package ships.

    containerd   containerd 2.x (Debian has 1.6); ctr and containerd-shim-runc-v2 of the same release
    pause        the sandbox of a pod, and the program of test images
    conformance  the OCI distribution spec's conformance test
    actionlint   checks .github/workflows
    interop-peer a go-libp2p DHT node driven by JSON lines (tests/interop/go)
    go-election  an elector of client-go (tests/interop/go-election)

Binaries go into a cache outside the checkout ($SPEIL_CACHE, default ~/.cache/speil), keyed by what they are made of;
what is there is not built again. `--print-path NAME` says where one is, `NAME …` builds only those.

The modules come with the hashes of a go.sum in this tree and with no others. To take another version of one in
scripts/go: `go get MODULE@VERSION && go mod tidy` in its folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("SPEIL_CACHE") or Path.home() / ".cache" / "speil")


@dataclass(frozen=True, slots=True)
class Tool:
    """A Go program: a package of the module in `source`, or of a module that its go.mod requires."""

    name: str
    source: Path
    package: str = "."

    @property
    def key(self) -> str:
        """What the cached binary is kept under."""
        files = sorted(file for file in self.source.iterdir() if file.suffix in (".go", ".mod", ".sum"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where its binary is, or will be."""
        return CACHE / self.name / self.key / self.name


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("interop-peer", ROOT / "tests" / "interop" / "go"),
        Tool("go-election", ROOT / "tests" / "interop" / "go-election"),
        Tool(
            "conformance",
            ROOT / "scripts" / "go" / "conformance",
            "github.com/opencontainers/distribution-spec/conformance",
        ),
        Tool("actionlint", ROOT / "scripts" / "go" / "actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),
        *(
            Tool(name, ROOT / "scripts" / "go" / "containerd", f"github.com/containerd/containerd/v2/cmd/{name}")
            for name in ("containerd", "ctr", "containerd-shim-runc-v2")
        ),
        Tool("pause", ROOT / "scripts" / "go" / "pause"),
    )
}


def build(tool: Tool) -> None:
    """Build one, unless it is there."""
    if tool.path.exists():
        print(f"{tool.name}: {tool.path}")
        return
    print(f"{tool.name}: building ...", flush=True)
    started = time.monotonic()
    tool.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = tool.path.with_suffix(f".{os.getpid()}")
    _go(tool.source, "build", "-trimpath", "-ldflags=-s -w", "-o", str(temporary), tool.package)
    temporary.rename(tool.path)
    print(f"{tool.name}: built in {time.monotonic() - started:.0f} s: {tool.path}", flush=True)


def _go(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    done = subprocess.run(["go", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"go {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


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
            if shutil.which("go") is None:
                sys.exit("there is no Go toolchain: install Go 1.24 or newer")
            build(TOOLS[name])


if __name__ == "__main__":
    main()
