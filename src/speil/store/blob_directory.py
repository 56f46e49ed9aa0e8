"""Content as files `<root>/blobs/<algorithm>/<hex>`: the layout of containerd's content store and of OCI layouts.

Both rename a file to this place when it is complete and verified, so every file is complete content. Anything but a
regular file (a FIFO, a device, a directory) counts as missing, and opening it never blocks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speil.local_file import NotAFileError, kind_of, open_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.store.base import NotFoundError, OpenContent, StoreUnavailableError

log = get_log("store")
_BROKEN = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)  # a failing disk; other files may still be readable
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class BlobDirectory:
    """The blobs below `root`. `strict`: others may write there, so symbolic links are not followed."""

    def __init__(self, root: Path, *, strict: bool = False) -> None:
        self.root, self._strict = root, strict
        self._odd = Seldom()

    def path(self, digest: Digest) -> Path:
        """The path for `digest`, whether the file exists or not."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def size(self, digest: Digest) -> int:
        """The size in bytes. Raises NotFoundError, StoreUnavailableError."""
        try:
            with self._directory(digest) as directory:
                found = os.stat(self._place(digest, directory), dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in _BROKEN:
                self._log_odd(digest, error.strerror)
            raise _translate(error, digest) from error
        if not stat.S_ISREG(found.st_mode):
            self._log_odd(digest, f"it is {kind_of(found)}, not a file")
            raise NotFoundError(f"{digest} is not a file")
        return found.st_size

    def open(self, digest: Digest) -> OpenContent:
        """Open the content; the caller closes it. Raises NotFoundError, StoreUnavailableError."""
        try:
            with self._directory(digest) as directory:
                descriptor, found = open_file(self._place(digest, directory), follow_links=False, dir_fd=directory)
        except OSError as error:
            if isinstance(error, NotAFileError) or error.errno in _BROKEN:
                self._log_odd(digest, error.strerror)
            raise _translate(error, digest) from error
        return OpenContent(digest, descriptor, found.st_size)

    def _log_odd(self, digest: Digest, what: str | None) -> None:
        if self._odd.due(str(digest)):
            log.warning("a blob can't be served", file=self.path(digest), error=what)

    def _place(self, digest: Digest, directory: int | None) -> Path | str:
        return self.path(digest) if directory is None else digest.hex

    @contextmanager
    def _directory(self, digest: Digest) -> Iterator[int | None]:
        """A descriptor of the algorithm's directory, opened without following links; None if not `strict`."""
        if not self._strict:
            yield None
            return
        descriptor = os.open(self.root, _DIRECTORY)
        try:
            for name in ("blobs", digest.algorithm):
                below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


def _translate(error: OSError, digest: Digest) -> NotFoundError | StoreUnavailableError:
    if isinstance(error, NotAFileError) or error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, *_BROKEN):
        return NotFoundError(f"{digest} is not in the store")
    return StoreUnavailableError(f"{digest}: {error.strerror}")
