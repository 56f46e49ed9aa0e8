"""Writes content as containerd does: `ingest_file` describes the files. Others can follow it while it grows."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from speil.oci.digest import Digest
from speil.store.ingest_file import DATA

REF = "oci-layout/1/blob-"  # then the digest


class VerificationError(Exception):
    """The received bytes do not match their digest or size. The sender is at fault; nothing was stored."""


class IngestWriter:
    """One download into the content directory `root`. End it with `commit` or `abort`. Its methods raise OSError."""

    def __init__(self, root: Path, digest: Digest, total: int | None) -> None:
        """`total` is the size of the content, None if it is unknown."""
        self.digest, self.total = digest, total
        ref = f"{REF}{os.urandom(8).hex()}-{digest}"
        self._blob = root / "blobs" / digest.algorithm / digest.hex
        self._directory = root / "ingest" / hashlib.sha256(ref.encode()).hexdigest()
        self._hasher, self.size = hashlib.new(digest.algorithm), 0
        self._fd = -1
        self._directory.mkdir(parents=True)
        started = datetime.now(UTC).isoformat()
        files = {"ref": ref, "startedat": started, "updatedat": started} | ({"total": str(total)} if total else {})
        try:
            for name, text in files.items():
                (self._directory / name).write_text(text)
            self._fd = os.open(self._directory / DATA, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def write(self, data: bytes) -> None:
        """Append bytes. Raises VerificationError where they are more than `total`."""
        if self.total is not None and self.size + len(data) > self.total:
            raise VerificationError(f"{self.digest}: received more than {self.total} bytes")
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._hasher.update(data)
        self.size += len(data)

    def rewind(self) -> None:
        """Begin again at the first byte, in the same file."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher, self.size = hashlib.new(self.digest.algorithm), 0

    def commit(self) -> None:
        """Make the content visible in the store. Raises VerificationError where the bytes are wrong."""
        found = self._hasher.hexdigest()
        if self.total not in (None, self.size) or found != self.digest.hex:
            raise VerificationError(f"{self.digest}: received {self.size} of {self.total} bytes, digest {found[:12]}")
        os.fchmod(self._fd, 0o444)
        self._blob.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self._directory / DATA, self._blob)
        self.abort()

    def abort(self) -> None:
        """Remove what is not committed. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            shutil.rmtree(self._directory, ignore_errors=True)
