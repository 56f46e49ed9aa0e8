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
import stat
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speil.local_file import kind_of, parse_json, read_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest, DigestError
from speil.oci.manifest import Descriptor
from speil.oci.reference import InvalidReferenceError, Reference
from speil.store.base import Image, NotFoundError, OpenContent, StoreEvent, StoreEventKind, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory

LOOK_SECONDS = 0.1  # between looks at the directory
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
PROBLEM_SECONDS = 1.0  # between looks for what is wrong with the whole layout
INDEX_BYTES_MAX = 8 << 20  # some 25,000 images; read at once, it takes ten times that in memory
_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'

log = get_log("store")


class VerificationError(Exception):
    """The bytes that were to be stored are not what their digest or size says: the sender erred."""


class OciLayoutStore:
    """A layout at `root`; `ingest` and `tag` make it where it is missing. `tell` hears whether it can be served."""

    def __init__(self, root: Path, tell: Callable[[bool], None] = lambda can_be_served: None) -> None:
        self.root, self._tell = root, tell
        self._blobs = BlobDirectory(root, strict=True)
        self._watched = [root / part for part in ("index.json", "blobs/sha256", "blobs/sha512")]
        self._index: tuple[tuple[int, ...], list[tuple[str, Digest]] | StoreUnavailableError] | None = None
        self._problem, self._skipped = Seldom(again_seconds=600), Seldom(again_seconds=600)

    @property
    def available(self) -> bool:
        """Whether there is a layout to read."""
        return all(_is_file(self.root / name) for name in ("oci-layout", "index.json"))

    async def run(self) -> None:
        """Nothing to keep alive; a layout that can't be read is said, and said again while it lasts."""
        while True:
            problem = self.problem()
            self._tell(not problem)
            if problem:
                if self._problem.due(problem):
                    log.warning("the image layout can't be served", path=self.root, error=problem)
            elif self._problem.over():
                log.info("the image layout can be served", path=self.root)
            await asyncio.sleep(PROBLEM_SECONDS)

    def problem(self) -> str:
        """What keeps the layout from being served; empty where nothing does."""
        if not self.root.is_dir():
            return f"{self.root} is not a directory" if self.root.exists() else f"there is no directory {self.root}"
        for name in ("oci-layout", "index.json"):
            try:
                found = (self.root / name).lstat()
            except OSError as error:
                return f"{self.root / name}: {error.strerror}; is this an OCI image layout?"
            if not stat.S_ISREG(found.st_mode):
                return f"{self.root / name} is {kind_of(found)}, not a file"
        for path in (self.root / "blobs", *self._watched[1:]):
            if path.is_symlink():
                return f"{path} is a symbolic link: what is behind it is not served"
        try:
            self._read_index()
        except StoreUnavailableError as error:
            return str(error)
        return ""

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
            document = self._read_document()
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
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.root)
        try:
            with open(descriptor, "w") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            os.rename(temporary, self.root / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

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
            found = path.lstat()
        except OSError as error:
            raise StoreUnavailableError(f"{path}: {error.strerror}") from error
        state = found.st_mtime_ns, found.st_ino, found.st_size
        if self._index is None or self._index[0] != state:
            try:
                self._index = state, self._named(self._read_document()["manifests"])
            except StoreUnavailableError as error:
                if isinstance(error.__cause__, OSError):
                    raise  # of this moment: no descriptor is left, say
                self._index = state, error  # a damaged index is read once, not at each request
        known = self._index[1]
        if isinstance(known, StoreUnavailableError):
            raise StoreUnavailableError(str(known))
        return known

    def _read_document(self) -> dict[str, Any]:
        """The index, with a list of manifests. Raises StoreUnavailableError."""
        path = self.root / "index.json"
        try:
            document = parse_json(read_file(path, INDEX_BYTES_MAX, follow_links=False).data)
        except OSError as error:
            raise StoreUnavailableError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise StoreUnavailableError(f"{path} is not an image layout's index: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("manifests"), list):
            raise StoreUnavailableError(f"{path} is not an image layout's index: it has no list of manifests")
        return document

    def _named(self, entries: list[Any]) -> list[tuple[str, Digest]]:
        """Those entries that have a name; one that is damaged costs itself alone."""
        named, damaged = [], 0
        for entry in entries:
            try:
                if name := _name(entry):
                    named.append((name, Digest.parse(entry["digest"])))
            except (DigestError, KeyError, TypeError, AttributeError):
                damaged += 1
        if damaged and self._skipped.due(str(damaged)):
            log.warning("entries of the image layout's index are damaged", file=self.root / "index.json", count=damaged)
        return named

    def _list_names(self) -> set[tuple[str, Digest]]:
        try:
            return set(self._read_index())
        except StoreUnavailableError:
            return set()

    def _list_blobs(self) -> set[Digest]:
        found = set()
        for algorithm in ("sha256", "sha512"):
            directory = self.root / "blobs" / algorithm
            try:
                names = [] if directory.is_symlink() or directory.parent.is_symlink() else os.listdir(directory)
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


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


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
