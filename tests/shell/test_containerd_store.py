"""The containerd store with a gRPC server in place of containerd, over a real socket, through outages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.base import NotFoundError, StoreEvent, StoreEventKind, StoreUnavailableError
from speil.store.containerd import store as module
from speil.store.containerd._pb import (
    containerd_version_pb2,
    content_pb2,
    events_pb2,
    images_pb2,
    introspection_pb2,
)
from speil.store.containerd.store import ContainerdStore
from speil.store.series import StoreSeries
from speil.testing.eventually import eventually

DIGEST = Digest.of(b"data")


class _Server(Server):
    """A server whose connections can be closed at once, as when it is killed."""

    protocols: list[Any]

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        self.protocols.append(protocol)
        return protocol


class Daemon:
    """The containerd services that speil uses, with the content of a directory."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.root = folder / "c.sock", folder / "root"
        (self.root / "blobs" / "sha256").mkdir(parents=True)
        self.images: dict[str, str] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.subscribed: list[Stream[Any, Any]] = []
        self._server: _Server | None = None

    async def start(self) -> None:
        self._server = _Server([self])
        self._server.protocols = []
        await self._server.start(path=str(self.socket))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for protocol in self._server.protocols:
            if hasattr(protocol, "connection"):  # it is being made
                protocol.connection.close()
        self.subscribed.clear()
        await self._server.wait_closed()
        self.socket.unlink(missing_ok=True)

    async def tell(self, topic: str, message: Any) -> None:
        event = AnyMessage(value=message.SerializeToString())
        for stream in self.subscribed:
            await stream.send_message(events_pb2.Envelope(namespace="k8s.io", topic=topic, event=event))

    async def subscribe(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        self.subscribed.append(stream)
        await asyncio.Event().wait()

    def __mapping__(self) -> dict[str, Handler]:
        def unary(answer: Any, request: type, reply: type) -> Handler:
            async def serve(stream: Stream[Any, Any]) -> None:
                await stream.send_message(answer(await stream.recv_message()))

            return Handler(serve, Cardinality.UNARY_UNARY, request, reply)

        services = "/containerd.services."
        content = introspection_pb2.Plugin(
            type="io.containerd.content.v1", id="content", exports={"root": str(self.root)}
        )
        return {
            f"{services}version.v1.Version/Version": unary(
                lambda _: containerd_version_pb2.VersionResponse(version="2.4.2"),
                Empty,
                containerd_version_pb2.VersionResponse,
            ),
            f"{services}introspection.v1.Introspection/Plugins": unary(
                lambda _: introspection_pb2.PluginsResponse(plugins=[content]),
                introspection_pb2.PluginsRequest,
                introspection_pb2.PluginsResponse,
            ),
            f"{services}images.v1.Images/List": unary(
                self._list, images_pb2.ListImagesRequest, images_pb2.ListImagesResponse
            ),
            f"{services}content.v1.Content/Info": unary(self._info, content_pb2.InfoRequest, content_pb2.InfoResponse),
            f"{services}events.v1.Events/Subscribe": Handler(
                self.subscribe, Cardinality.UNARY_STREAM, events_pb2.SubscribeRequest, events_pb2.Envelope
            ),
        }

    def _list(self, _: Any) -> images_pb2.ListImagesResponse:
        return images_pb2.ListImagesResponse(
            images=[
                images_pb2.Image(name=name, target=images_pb2.Descriptor(digest=digest))
                for name, digest in self.images.items()
            ]
        )

    def _info(self, request: content_pb2.InfoRequest) -> content_pb2.InfoResponse:
        if request.digest not in self.labels:
            raise GRPCError(Status.NOT_FOUND, "content not found")
        info = content_pb2.Info(digest=request.digest, labels=self.labels[request.digest])
        return content_pb2.InfoResponse(info=info)


class Waits:
    """Records the waits between two attempts, and shortens them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.001)


@asynccontextmanager
async def following(
    daemon: Daemon, waits: Waits | None = None, subscribed_seconds: float = 1.0
) -> AsyncIterator[tuple[ContainerdStore, list[StoreEvent]]]:
    """A running store, and the events that it has sent."""
    store = ContainerdStore(
        str(daemon.socket),
        "k8s.io",
        "",
        Metrics().of(StoreSeries),
        sleep=waits.sleep if waits else asyncio.sleep,
        subscribed_seconds=subscribed_seconds,
    )
    news: list[StoreEvent] = []

    async def listen() -> None:
        async for event in store.events():
            news.append(event)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.run()), group.create_task(listen())]
        try:
            yield store, news
        finally:
            for task in tasks:
                task.cancel()


async def test_each_outage_is_said_once_and_waited_for_from_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waits = Waits()
    daemon = Daemon(tmp_path)
    async with following(daemon, waits, 0.01) as (store, news):
        for outage in range(1, 4):
            await eventually(lambda: len(waits.seconds) >= 8, what="it waits for it")
            assert waits.seconds[:3] == [0.1, 0.2, 0.4]
            assert max(waits.seconds) <= module.RETRY_SECONDS_MAX
            assert caplog.messages.count("containerd is away: waiting for it") == outage
            news.clear()
            await daemon.start()
            await eventually(lambda: store.available, what="it is there")
            await eventually(lambda: StoreEvent(StoreEventKind.RESYNC) in news, what="everything is looked at again")
            assert caplog.messages.count("containerd is back") == outage
            await eventually(lambda: daemon.subscribed, what="events are followed")
            await daemon.tell("/content/create", events_pb2.ContentCreate(digest=str(DIGEST)))
            await eventually(lambda: StoreEvent(StoreEventKind.CONTENT_ADDED, DIGEST) in news, what="news")
            waits.seconds.clear()
            await daemon.stop()
            await eventually(lambda: not store.available, what="it is gone")
            with pytest.raises(StoreUnavailableError):
                await store.images()
            with pytest.raises(StoreUnavailableError):
                await store.origins(DIGEST)


async def test_one_that_ends_each_connection_at_once_is_asked_gently_and_fills_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()

    async def refuses(daemon: Daemon, stream: Stream[Any, Any]) -> None:
        raise GRPCError(Status.PERMISSION_DENIED, "no events for you")

    monkeypatch.setattr(Daemon, "subscribe", refuses)
    daemon = Daemon(tmp_path)
    await daemon.start()
    async with following(daemon, waits, 3600.0):  # a loaded machine refuses late
        await eventually(lambda: len(waits.seconds) >= 30, what="it tries again and again")
    assert waits.seconds[-1] == module.RETRY_SECONDS_MAX
    await daemon.stop()
    # whichever level an earlier test has left: it is the warnings that fill a log
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 0 < len(warnings) <= module.SHORT_MAX + 2


async def test_where_content_came_from_is_what_its_labels_say(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    await daemon.start()
    daemon.labels[str(DIGEST)] = {
        "containerd.io/distribution.source.reg.test": "lab/app,lab/other",
        "containerd.io/distribution.source.localhost:5999": "x",
        "containerd.io/uncompressed": str(DIGEST),
        "containerd.io/distribution.source.empty.test": "",
    }
    async with following(daemon) as (store, _):
        await eventually(lambda: store.available, what="it is there")
        assert set(await store.origins(DIGEST)) == {"reg.test/lab/app", "reg.test/lab/other", "localhost:5999/x"}
        with pytest.raises(NotFoundError):
            await store.origins(Digest.of(b"other"))
    await daemon.stop()


async def test_an_image_with_an_odd_digest_does_not_hide_the_others(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.images = {"reg.test/lab/odd:1": "sha384:" + "0" * 96, "reg.test/lab/app:1": str(DIGEST)}
    await daemon.start()
    async with following(daemon) as (store, _):
        await eventually(lambda: store.available, what="it is there")
        assert [image.name for image in await store.images()] == ["reg.test/lab/app:1"]
    await daemon.stop()
