"""A memory limit for the nodes of a bench, as a kubelet sets it: SPEIL_BENCH_MEMORY_MIB=128 (root).

The node that needs more is killed, and the bench fails. What each took is printed: all memory of the cgroup, with the
page cache, which the kernel takes back, and how often the limit was reached.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LIMIT_MIB = int(os.environ.get("SPEIL_BENCH_MEMORY_MIB", "0"))
_ROOT = Path("/sys/fs/cgroup")
_IS_V1 = (_ROOT / "memory").is_dir()
_ENTER = 'echo $$ >"$0" && exec "$@"'


class MemoryLimit:
    """A cgroup for one process."""

    def __init__(self, name: str) -> None:
        self._folder = (_ROOT / "memory" if _IS_V1 else _ROOT) / f"speil-bench-{os.getpid()}-{name}"
        self._folder.mkdir()
        limit = "memory.limit_in_bytes" if _IS_V1 else "memory.max"
        (self._folder / limit).write_text(str(LIMIT_MIB << 20))

    def argv(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` in the cgroup."""
        return ["/bin/sh", "-c", _ENTER, str(self._folder / "cgroup.procs"), *argv]

    def close(self, name: str) -> None:
        """Print what the process took, and remove the cgroup; the process has ended."""
        peak = int(self._read("memory.max_usage_in_bytes" if _IS_V1 else "memory.peak"))
        if _IS_V1:
            reached = self._read("memory.failcnt")
        else:
            events = dict(line.split() for line in self._read("memory.events").splitlines())
            reached = events["max"]
        print(
            f"memory of {name}: {peak / (1 << 20):.1f} of {LIMIT_MIB} MiB, limit reached {reached} times",
            file=sys.stderr,
        )
        self._folder.rmdir()

    def _read(self, file: str) -> str:
        return (self._folder / file).read_text().strip()
