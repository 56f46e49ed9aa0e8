"""The image's Python, run on the build machine out of the unpacked root of the build machine's architecture.

It compiles and compresses, so that neither depends on the Python and the zstd that the build machine has.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.image.commands import run

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SPEIL_CACHE") or Path.home() / ".cache" / "speil") / "image-layers"
ZSTANDARD = ROOT / "scripts" / "requirements" / "zstandard.txt"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
LIBRARY_FOLDERS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADERS = {"amd64": "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "arm64": "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"}

# Level 19 is a fifth smaller than gzip's best and unpacks three times as fast. Its window of 8 MiB suits every reader.
# One thread: the bytes must not depend on the number of cores.
_COMPRESS = """
import sys, zstandard
sys.stdout.buffer.write(zstandard.ZstdCompressor(level=19, write_checksum=True).compress(sys.stdin.buffer.read()))
"""


def native_architecture() -> str:
    """The build machine's. Exits where it is none that the image is made for."""
    machine = platform.machine()
    if machine not in MACHINES:
        sys.exit(f"the image is built on {' or '.join(MACHINES)}; this is {machine}")
    return MACHINES[machine]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of an unpacked root."""

    root: Path
    architecture: str
    tools: Path  # zstandard, unpacked
    cache: bool = True  # take what was compressed before

    def compile(self, root: Path, folders: list[str]) -> None:
        """Compile all modules of some folders of a root.

        A .pyc is not checked against its source: all files of the image have the same time, and a root that is
        read-only could not store a new one. One process in sorted order with a fixed hash seed: the same sources give
        the same bytes.
        """
        options = ["-q", "-f", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
        self._run("-m", "compileall", *options, *(str(root / folder) for folder in folders))

    def compress(self, data: bytes) -> bytes:
        """Zstandard: half a minute for the base, so what was compressed before is taken out of the cache."""
        key = hashlib.sha256(_COMPRESS.encode() + ZSTANDARD.read_bytes() + data).hexdigest()
        cached = CACHE / f"{key}.zst"
        if cached.exists() and self.cache:
            return cached.read_bytes()
        compressed = self._run("-c", _COMPRESS, data=data)
        partial = cached.with_suffix(f".{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(compressed)
            partial.rename(cached)
        finally:
            partial.unlink(missing_ok=True)
        return compressed

    def _run(self, *arguments: str, data: bytes = b"") -> bytes:
        folder = LIBRARY_FOLDERS[self.architecture]
        libraries = f"{self.root}/lib/{folder}:{self.root}/usr/lib/{folder}"
        loader = [str(self.root / LOADERS[self.architecture]), "--library-path", libraries]
        command = [*loader, str(self.root / "usr/bin/python3.11"), "-s", "-S", *arguments]
        environment = {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.tools),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
        }
        done = run(command, data=data, environment=environment)
        if done.code:
            sys.exit(f"the image's Python failed:\n{done.end}")
        return done.out
