"""A ContentStore that reads the images and content of containerd.

Image names come over the socket. Content is opened on the disk, which takes microseconds; a request to containerd takes
milliseconds. The content directory comes from containerd's introspection API. containerd may be down at the start, or
restart. Then the store logs one line, waits, and sends RESYNC when containerd is back. Blobs on the disk are served
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from google.protobuf.message import DecodeError

from speil.observe.logs import get_log
from speil.oci.digest import Digest, DigestError
from speil.store.base import Image, NotFoundError, OpenContent, StoreEvent, StoreEventKind, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory
from speil.store.containerd._pb import events_pb2
from speil.store.containerd.client import ContainerdClient
from speil.store.series import StoreSeries

SOURCE_LABEL = (
    "containerd.io/distribution.source."  # followed by the registry host; the value is a list of repositories
)
CONTENT_PLUGIN = ("io.containerd.content.v1", "content")
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = (
    0.1,
    5.0,
)  # a restart takes a second; a containerd that stays down is polled slowly
SHORT_MAX = 10  # connections in a row that ended at once; after that containerd counts as down
SUBSCRIBED_SECONDS = 1.0  # a subscription is not confirmed: a second RESYNC covers events from before it started
LISTENER_EVENTS_MAX = 10_000  # undelivered events; above it they are replaced by a RESYNC

log = get_log("containerd")


class ContainerdStore:
    """The store of one containerd and namespace. `content_path`: the content directory; "" asks containerd for it.

    `sleep` waits between two attempts, `subscribed_seconds` before the second RESYNC; tests replace them.
    """

    def __init__(
        self,
        socket_path: str,
        namespace: str,
        content_path: str,
        series: StoreSeries,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        subscribed_seconds: float = SUBSCRIBED_SECONDS,
    ) -> None:
        self._sleep, self._subscribed_seconds = sleep, subscribed_seconds
        self._socket_path, self._namespace, self._series = socket_path, namespace, series
        self._client = ContainerdClient(socket_path, namespace)
        self._configured = content_path
        self._blobs: BlobDirectory | None = BlobDirectory(Path(content_path)) if content_path else None
        self._listeners: list[asyncio.Queue[StoreEvent]] = []
        self.available = False
        self._up = asyncio.Event()

    @property
    def content_root(self) -> Path | None:
        """The content directory; None until containerd has answered, if it was not given."""
        return self._blobs.root if self._blobs else None

    async def wait_available(self) -> None:
        """Wait until containerd has answered for the first time."""
        await self._up.wait()

    async def run(self) -> None:
        """Deliver the events of containerd, also across its restarts. Runs until cancelled."""
        wait, away, short, now = RETRY_SECONDS_MIN, False, 0, asyncio.get_running_loop().time
        while True:
            since = None
            try:
                await self._locate()
                since = now()
                if short <= SHORT_MAX:
                    if away:
                        log.info("containerd is back", socket=self._socket_path)
                    wait, away = RETRY_SECONDS_MIN, False
                await self._deliver_events()
            except StoreUnavailableError as error:
                self._set_available(False)
                if not away:
                    away = True
                    log.warning("containerd is away: waiting for it", socket=self._socket_path, error=error)
            finally:
                self._client.close()
            if since is not None:
                short = short + 1 if now() - since < self._subscribed_seconds else 0
            await self._sleep(wait)
            wait = min(wait * 2, RETRY_SECONDS_MAX)

    async def resolve(self, image: str) -> Digest:
        """See ContentStore."""
        self._check()
        return _digest((await self._client.get_image(image)).target.digest)

    async def size(self, digest: Digest) -> int:
        """See ContentStore."""
        return self._directory().size(digest)

    async def open(self, digest: Digest) -> OpenContent:
        """See ContentStore."""
        return self._directory().open(digest)

    async def images(self) -> list[Image]:
        """See ContentStore. containerd has up to three names for an image; all are returned."""
        self._check()
        found = []
        for image in await self._client.list_images():
            try:
                found.append(Image(image.name, _digest(image.target.digest)))
            except NotFoundError as error:
                log.debug("image has an unusable digest: skipped", image=image.name, error=error)
        return found

    async def origins(self, digest: Digest) -> tuple[str, ...]:
        """See ContentStore. containerd records the origins shortly after the event for the content."""
        self._check()
        labels = await self._client.content_labels(str(digest))
        return tuple(
            f"{key.removeprefix(SOURCE_LABEL)}/{name}"
            for key, names in labels.items()
            if key.startswith(SOURCE_LABEL)
            for name in names.split(",")
            if name
        )

    async def events(self) -> AsyncIterator[StoreEvent]:
        """See ContentStore."""
        queue: asyncio.Queue[StoreEvent] = asyncio.Queue(LISTENER_EVENTS_MAX)
        self._listeners.append(queue)
        try:
            yield StoreEvent(StoreEventKind.RESYNC)
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def _locate(self) -> None:
        version = await self._client.version()
        if self._configured:
            return
        for plugin in await self._client.plugins(f"type=={CONTENT_PLUGIN[0]}"):
            if (plugin.type, plugin.id) == CONTENT_PLUGIN and (root := plugin.exports.get("root")):
                if self._blobs is None or str(self._blobs.root) != root:
                    self._blobs = BlobDirectory(Path(root))
                    log.info("containerd found", version=version, socket=self._socket_path, content=root)
                return
        raise StoreUnavailableError(f"{self._socket_path} reports no content directory: set --containerd-content-path")

    async def _deliver_events(self) -> None:
        """Deliver events until the stream ends; then raise StoreUnavailableError."""
        stream = self._client.events()
        self._set_available(True)
        resync = StoreEvent(StoreEventKind.RESYNC)
        self._send(resync)
        again = asyncio.get_running_loop().call_later(self._subscribed_seconds, self._send, resync)
        try:
            async for envelope in stream:
                if envelope.namespace == self._namespace and (event := _translate(envelope)):
                    self._send(event)
        finally:
            again.cancel()
        raise StoreUnavailableError("the event stream ended")

    def _directory(self) -> BlobDirectory:
        if self._blobs is None:
            raise StoreUnavailableError("containerd has not answered since the start")
        return self._blobs

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailableError("containerd does not answer")

    def _set_available(self, available: bool) -> None:
        self.available = available
        if available:
            self._up.set()
        self._series.available.set(available)

    def _send(self, event: StoreEvent) -> None:
        for queue in self._listeners:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                event = StoreEvent(StoreEventKind.RESYNC)
            queue.put_nowait(event)


def _translate(envelope: events_pb2.Envelope) -> StoreEvent | None:
    """Convert an event of containerd by its topic; the topics do not name their types alike. None for others."""
    payload = envelope.event.value
    try:
        match envelope.topic:
            case "/images/create" | "/images/update":
                return StoreEvent(StoreEventKind.IMAGE_ADDED, image=events_pb2.ImageCreate.FromString(payload).name)
            case "/images/delete":
                return StoreEvent(StoreEventKind.IMAGE_REMOVED, image=events_pb2.ImageDelete.FromString(payload).name)
            case "/content/create":
                digest = _digest(events_pb2.ContentCreate.FromString(payload).digest)
                return StoreEvent(StoreEventKind.CONTENT_ADDED, digest=digest)
            case "/content/delete":
                digest = _digest(events_pb2.ContentDelete.FromString(payload).digest)
                return StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=digest)
    except (DecodeError, NotFoundError):
        log.warning("containerd event can't be read", topic=envelope.topic)
    return None


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestError as error:
        raise NotFoundError(str(error)) from error
