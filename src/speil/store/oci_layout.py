"""An OCI image layout (OCI image spec, "Image Layout") as a content store: the embedded default.

For demos, tests and air-gapped seeds: a directory that `skopeo copy … oci:` or an image export wrote is enough. Names
come from the annotations of `index.json`: containerd's full image name, or `org.opencontainers.image.ref.name` where
that holds one. The directory may be written by others; it is looked at a few times a second, which costs three stats.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speil.oci.digest import Digest, DigestError
from speil.oci.manifest import Descriptor
from speil.oci.reference import InvalidReferenceError, Reference
from speil.store.base import Image, NotFoundError, OpenContent, StoreEvent, StoreEventKind, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory

LOOK_SECONDS = 0.1  # between looks at the directory
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
INDEX_BYTES_MAX = 64 << 20  # a layout of a hundred thousand images
_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'


class VerificationError(Exception):
    """The bytes that were to be stored are not what their digest or size says: the sender erred."""


class OciLayoutStore:
    """A layout at `root`; `ingest` and `tag` make it where it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = BlobDirectory(root)
        self._watched = [root / part for part in ("index.json", "blobs/sha256", "blobs/sha512")]
        self._index: tuple[int, int, list[tuple[str, Digest]]] | None = None

    @property
    def available(self) -> bool:
        """Whether there is a layout to read."""
        return (self.root / "oci-layout").is_file() and (self.root / "index.json").is_file()

    async def run(self) -> None:
        """Nothing to keep alive."""
        await asyncio.Event().wait()

    async def resolve(self, image: str) -> Digest:
        """See ContentStore."""
        for name, target in self._read_index():
            if name == image:
                return target
        raise NotFoundError(image)

    async def size(self, digest: Digest) -> int:
        """See ContentStore."""
        return self._blobs.size(digest)

    async def open(self, digest: Digest) -> OpenContent:
        """See ContentStore."""
        return self._blobs.open(digest)

    async def origins(self, digest: Digest) -> tuple[str, ...]:
        """See ContentStore; a layout records none."""
        self._blobs.size(digest)
        return ()

    async def images(self) -> list[Image]:
        """See ContentStore."""
        return [Image(name, target) for name, target in self._read_index()]

    async def events(self) -> AsyncIterator[StoreEvent]:
        """See ContentStore: what two looks at the directory differ in."""
        blobs, names, stamp = self._list_blobs(), self._list_names(), self._stamp()
        yield StoreEvent(StoreEventKind.RESYNC)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (now := self._stamp()) == stamp:
                continue
            stamp = now
            old_blobs, blobs = blobs, self._list_blobs()
            old_names, names = names, self._list_names()
            for digest in sorted(blobs - old_blobs):
                yield StoreEvent(StoreEventKind.CONTENT_ADDED, digest=digest)
            for name, _ in names - old_names:
                yield StoreEvent(StoreEventKind.IMAGE_ADDED, image=name)
            for name, _ in old_names - names:
                if name not in dict(names):
                    yield StoreEvent(StoreEventKind.IMAGE_REMOVED, image=name)
            for digest in sorted(old_blobs - blobs):
                yield StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=digest)

    # --- writing ----------------------------------------------------------------------------------------

    async def ingest(self, digest: Digest, size: int, chunks: AsyncIterable[bytes]) -> None:
        """Store content, verified while it comes; it is visible when it is whole.

        Raises VerificationError, StoreUnavailableError, and whatever `chunks` raises; nothing is left behind then.
        """
        directory = self._blobs.path(digest).parent
        self._make()
        directory.mkdir(parents=True, exist_ok=True)
        hasher, received = hashlib.new(digest.algorithm), 0
        descriptor, temporary = tempfile.mkstemp(prefix=".ingest-", dir=self.root)
        try:
            with open(descriptor, "wb") as file:
                async for chunk in chunks:
                    received += len(chunk)
                    if received > size:
                        raise VerificationError(f"{digest}: more than its {size} bytes")
                    hasher.update(chunk)
                    file.write(chunk)
            if received != size or hasher.hexdigest() != digest.hex:
                raise VerificationError(f"{digest}: {received} bytes with digest {hasher.hexdigest()[:12]}")
            os.chmod(temporary, 0o444)
            os.rename(temporary, self._blobs.path(digest))
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise StoreUnavailableError(f"{self.root}: {error.strerror}") from error
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    async def tag(self, name: str, target: Descriptor) -> None:
        """Name an image, in place of what had the name."""
        self._make()
        with self._locked():
            document = json.loads((self.root / "index.json").read_bytes())
            others = [entry for entry in document["manifests"] if _name(entry) != name]
            entry = {
                "mediaType": target.media_type,
                "digest": str(target.digest),
                "size": target.size,
                "annotations": {NAME_ANNOTATIONS[0]: name, NAME_ANNOTATIONS[1]: name},
            }
            self._replace("index.json", json.dumps({**document, "manifests": [*others, entry]}))

    def _make(self) -> None:
        if self.available:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if not (self.root / "index.json").exists():
                    self._replace("index.json", json.dumps({"schemaVersion": 2, "manifests": []}))
                self._replace("oci-layout", _LAYOUT)
        except OSError as error:
            raise StoreUnavailableError(f"{self.root}: {error.strerror}") from error

    def _replace(self, name: str, text: str) -> None:
        temporary = self.root / f".{name}.{os.getpid()}"
        temporary.write_text(text)
        temporary.rename(self.root / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # --- reading ----------------------------------------------------------------------------------------

    def _read_index(self) -> list[tuple[str, Digest]]:
        """(name, target) of all named entries. Raises StoreUnavailableError for a missing or damaged index."""
        path = self.root / "index.json"
        try:
            found = path.stat()
            if self._index and self._index[:2] == (found.st_mtime_ns, found.st_ino):
                return self._index[2]
            if found.st_size > INDEX_BYTES_MAX:
                raise StoreUnavailableError(f"{path} has {found.st_size} bytes: that is no image layout's index")
            entries = json.loads(path.read_bytes())["manifests"]
            named = [(name, Digest.parse(entry["digest"])) for entry in entries if (name := _name(entry))]
        except OSError as error:
            raise StoreUnavailableError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, DigestError) as error:
            raise StoreUnavailableError(f"{path} is not an image layout's index: {error!r}") from error
        self._index = (found.st_mtime_ns, found.st_ino, named)
        return named

    def _list_names(self) -> set[tuple[str, Digest]]:
        try:
            return set(self._read_index())
        except StoreUnavailableError:
            return set()

    def _list_blobs(self) -> set[Digest]:
        found = set()
        for algorithm in ("sha256", "sha512"):
            try:
                names = os.listdir(self.root / "blobs" / algorithm)
            except OSError:
                continue
            for name in names:
                try:
                    found.add(Digest.parse(f"{algorithm}:{name}"))
                except DigestError:
                    continue
        return found

    def _stamp(self) -> tuple[int, ...]:
        """Changes when content or names change."""
        return tuple(_mtime(path) for path in self._watched)


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _name(entry: dict[str, Any]) -> str | None:
    """The full image name of an index entry, if it has one."""
    annotations = entry.get("annotations") or {}
    for key in NAME_ANNOTATIONS:
        try:
            Reference.parse(str(annotations.get(key, "")))
        except InvalidReferenceError:
            continue
        return str(annotations[key])
    return None
