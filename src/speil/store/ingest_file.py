"""The files of one ingest, as containerd writes them: `<root>/ingest/<name>/{ref,startedat,updatedat,total,data}`.

`ref` ends in the digest of the content, `total` is the size it will have, `data` grows. `data` is created last. At the
commit it is renamed to `<root>/blobs/<algorithm>/<hex>`, and the directory is removed. A download that is cancelled is
removed later.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from speil.local_file import open_file, read_file
from speil.oci.digest import Digest, DigestError

DATA = "data"
SMALL_BYTES_MAX = 4096  # of `ref` and `total`; they have some hundred bytes
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_DIGEST = re.compile(r"-(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\s*$", re.ASCII)


class IngestFile:
    """An ingest's directory, held by a descriptor: a link that replaces it is not followed. Close it."""

    def __init__(self, directory: Path | str, *, dir_fd: int | None = None) -> None:
        """Raises OSError."""
        self._fd = os.open(directory, _DIRECTORY, dir_fd=dir_fd)
        self._data_fd = -1

    @property
    def path(self) -> str:
        """A path that leads to the directory as long as this is open."""
        return f"/proc/self/fd/{self._fd}"

    def digest(self) -> Digest | None:
        """The digest in `ref`; None for other content. Raises OSError where the file is not there (yet)."""
        match = _DIGEST.search(self._read("ref"))
        try:
            return Digest.parse(match[1]) if match else None
        except DigestError:
            return None

    def total(self) -> int | None:
        """The size that it will have; None where the runtime did not record it. Raises OSError."""
        try:
            text = self._read("total").strip()
        except FileNotFoundError:
            return None
        return int(text) if re.fullmatch(r"[1-9][0-9]{0,18}", text, re.ASCII) else None

    def data(self) -> os.stat_result | None:
        """What is known of `data`; None where it is not there, or not a file. Raises OSError."""
        try:
            found = os.stat(DATA, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def hold(self) -> None:
        """Keep `data` in reach of `last_size`, whatever becomes of its name. Raises OSError."""
        if self._data_fd < 0:
            self._data_fd = os.open(DATA, _FILE, dir_fd=self._fd)

    def last_size(self) -> int:
        """The size of the file that `hold` has kept, which may be deleted since; 0 without `hold`."""
        return os.fstat(self._data_fd).st_size if self._data_fd >= 0 else 0

    def open(self) -> tuple[int, os.stat_result]:
        """Open `data` for reading: the descriptor, which the caller closes. Raises OSError."""
        return open_file(DATA, follow_links=False, dir_fd=self._fd)

    def close(self) -> None:
        """Close the descriptors. A second call does nothing."""
        for descriptor in (self._fd, self._data_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._data_fd = -1

    def _read(self, name: str) -> str:
        found = read_file(name, SMALL_BYTES_MAX, follow_links=False, dir_fd=self._fd)
        return found.data.decode("ascii", "replace")
