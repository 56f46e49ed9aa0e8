"""Content as files `<root>/blobs/<algorithm>/<hex>`: the layout of containerd's content store and of OCI layouts.

Both put a file there by renaming it once it is complete and verified, so what can be opened is right.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from speil.oci.digest import Digest
from speil.store.base import NotFoundError, OpenContent, StoreUnavailableError


class BlobDirectory:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: Digest) -> Path:
        """Where the content of `digest` is, if it is."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def size(self, digest: Digest) -> int:
        """Bytes of content. Raises NotFoundError, StoreUnavailableError."""
        try:
            found = self.path(digest).stat()
        except OSError as error:
            raise _translate(error, digest) from error
        if not stat.S_ISREG(found.st_mode):
            raise NotFoundError(f"{digest} is not a file")
        return found.st_size

    def open(self, digest: Digest) -> OpenContent:
        """Content, open. Raises NotFoundError, StoreUnavailableError."""
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise _translate(error, digest) from error
        return OpenContent(digest, descriptor, os.fstat(descriptor).st_size)


def _translate(error: OSError, digest: Digest) -> NotFoundError | StoreUnavailableError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return NotFoundError(f"{digest} is not here")
    return StoreUnavailableError(f"{digest}: {error.strerror}")
