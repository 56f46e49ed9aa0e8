"""Generate the `_pb` modules from `proto/` (run by `make proto`; the result is committed).

protoc writes absolute imports between generated modules; ours live inside packages, so no generated module
imports another: each .proto file stands alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {
    "containerd/content.proto": "store/containerd",
    "containerd/images.proto": "store/containerd",
    "containerd/events.proto": "store/containerd",
    "containerd/introspection.proto": "store/containerd",
    "containerd/containerd_version.proto": "store/containerd",
    "containerd/cri.proto": "store/containerd",
    "libp2p/dht.proto": "kad",
    "libp2p/keys.proto": "libp2p",
    "libp2p/noise.proto": "libp2p",
    "libp2p/identify.proto": "libp2p",
    "libp2p/peer_record.proto": "libp2p",
}


def main() -> None:
    for source, package in TARGETS.items():
        path = ROOT / "proto" / source
        out = ROOT / "src" / "speil" / package / "_pb"
        out.mkdir(parents=True, exist_ok=True)
        (out / "__init__.py").write_text('"""Generated from proto/ by `make proto`. Do not edit."""\n')
        command = [
            sys.executable, "-m", "grpc_tools.protoc", f"-I{path.parent}",
            f"--python_out={out}", f"--pyi_out={out}", path.name,
        ]  # fmt: skip
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
