"""A content store that reads an OCI image layout (OCI image spec, "Image Layout").

It serves demos, tests and air-gapped clusters: a directory written by `skopeo copy … oci:` or an image export. Image
names come from the annotations of `index.json`: `io.containerd.image.name`, or `org.opencontainers.image.ref.name` if
it is a full name. Other processes may write the directory. It is checked ten times a second, with three stats.
"""

from __future__ import annotations

import asyncio
import fcntl
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
from speil.store.ingest_writer import IngestWriter

LOOK_SECONDS = 0.1  # between checks for changes
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
PROBLEM_SECONDS = 1.0  # between checks whether the layout is valid
INDEX_BYTES_MAX = 8 << 20  # some 25,000 images; parsing takes ten times that in memory
_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'

log = get_log("store")


class OciLayoutStore:
    """The layout at `root`. `ingest` and `tag` create it if it is missing.

    `tell` is called about once a second with True if the layout can be served, else False.
    """

    def __init__(self, root: Path, tell: Callable[[bool], None] = lambda can_be_served: None) -> None:
        self.root, self._tell = root, tell
        self._blobs = BlobDirectory(root, strict=True)
        self._watched = [root / part for part in ("index.json", "blobs/sha256", "blobs/sha512")]
        self._index: tuple[tuple[int, ...], list[tuple[str, Digest]] | StoreUnavailableError] | None = None
        self._problem, self._skipped = Seldom(again_seconds=600), Seldom(again_seconds=600)

    @property
    def available(self) -> bool:
        """Whether `oci-layout` and `index.json` exist as regular files."""
        return all(_is_file(self.root / name) for name in ("oci-layout", "index.json"))

    async def run(self) -> None:
        """Check the layout every PROBLEM_SECONDS; log a warning while it can't be served. Runs until cancelled."""
        while True:
            problem = self.problem()
            self._tell(not problem)
            if problem:
                if self._problem.due(problem):
                    log.warning("image layout can't be served", path=self.root, error=problem)
            elif self._problem.over():
                log.info("image layout can be served", path=self.root)
            await asyncio.sleep(PROBLEM_SECONDS)

    def problem(self) -> str:
        """Why the layout can't be served; "" if it can."""
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
                return f"{path} is a symbolic link, and links are not followed"
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
        """See ContentStore. A layout records no origins."""
        self._blobs.size(digest)
        return ()

    async def images(self) -> list[Image]:
        """See ContentStore."""
        return [Image(name, target) for name, target in self._read_index()]

    async def events(self) -> AsyncIterator[StoreEvent]:
        """See ContentStore. Events are the differences between two checks of the directory."""
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
        """Store `size` bytes of content. It becomes visible when it is complete and its digest matches.

        While it grows it is an ingest, which others can follow (`ingests`).
        Raises VerificationError, StoreUnavailableError, and what `chunks` raises. Nothing is stored then.
        """
        self._make()
        try:
            writer = IngestWriter(self.root, digest, size)
            try:
                async for chunk in chunks:
                    writer.write(chunk)
                writer.commit()
            finally:
                writer.abort()
        except OSError as error:
            raise StoreUnavailableError(f"{self.root}: {error.strerror}") from error

    async def tag(self, name: str, target: Descriptor) -> None:
        """Name an image; an image that had this name loses it. Raises StoreUnavailableError."""
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
        """(name, target) of all entries with a name. Raises StoreUnavailableError for a missing or damaged index."""
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
                    raise  # a temporary error, such as no free descriptor: try again next time
                self._index = state, error  # do not read a damaged index again until it changes
        known = self._index[1]
        if isinstance(known, StoreUnavailableError):
            raise StoreUnavailableError(str(known))
        return known

    def _read_document(self) -> dict[str, Any]:
        """The parsed index; `manifests` is a list. Raises StoreUnavailableError."""
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
        """The entries with a name. Damaged entries are skipped."""
        named, damaged = [], 0
        for entry in entries:
            try:
                if name := _name(entry):
                    named.append((name, Digest.parse(entry["digest"])))
            except (DigestError, KeyError, TypeError, AttributeError):
                damaged += 1
        if damaged and self._skipped.due(str(damaged)):
            log.warning("image layout index has damaged entries", file=self.root / "index.json", count=damaged)
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
        """A value that changes when content or names change."""
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
    """The full image name of an index entry; None if it has none."""
    annotations = entry.get("annotations") or {}
    for key in NAME_ANNOTATIONS:
        try:
            Reference.parse(str(annotations.get(key, "")))
        except InvalidReferenceError:
            continue
        return str(annotations[key])
    return None
