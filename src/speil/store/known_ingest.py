"""The state that `ingest_directory` keeps for one ingest."""

from __future__ import annotations

import time

from speil.store.growing_content import IngestRecord
from speil.store.ingest_file import IngestFile


class NotContentError(Exception):
    """The directory is no ingest of content with a digest."""


class KnownIngest:
    """An ingest that was seen. `record` is None until its content is known. It owns `file`."""

    def __init__(self, name: str, file: IngestFile) -> None:
        self.name, self.file = name, file
        self.record: IngestRecord | None = None
        self.watch: int | None = None
        self.inode = 0
        self.reported_size = 0  # in the last event

    @property
    def is_open(self) -> bool:
        """Whether somebody reads it."""
        return self.record is not None and bool(self.record.readers)

    def identify(self, now: float) -> bool:
        """Read whose content it is; False while `data` is not there, which is created last. Raises NotContentError."""
        try:
            if (found := self.file.data()) is None:
                return False
            digest, total = self.file.digest(), self.file.total()
            self.file.hold()
        except OSError as error:
            raise NotContentError from error
        if digest is None:
            raise NotContentError
        # a clock that was set back makes files of the future: they count as new
        silent_seconds = max(0.0, time.time() - found.st_mtime)
        self.record = IngestRecord(digest, total, found.st_size, now - silent_seconds)
        self.inode, self.reported_size = found.st_ino, found.st_size
        return True

    def size(self) -> int | None:
        """How large the file is now; None where it is not there any more."""
        try:
            found = self.file.data()
        except OSError:
            return None
        return found.st_size if found is not None and found.st_ino == self.inode else None
