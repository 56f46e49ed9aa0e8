"""A client for the gRPC services of containerd, over its Unix socket.

Each call has a time limit of CALL_SECONDS_MAX. Errors become NotFoundError or StoreUnavailableError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from speil.store.base import NotFoundError, StoreUnavailableError
from speil.store.containerd._pb import (
    containerd_version_pb2,
    content_pb2,
    cri_pb2,
    events_pb2,
    images_pb2,
    introspection_pb2,
)

CALL_SECONDS_MAX = 10.0  # even a loaded containerd answers in milliseconds; a hanging one must not block speil
PULL_SECONDS_MAX = 600.0  # for the test pull of `speil doctor`

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class ContainerdClient:
    """A client for one containerd and one namespace. It connects with the first call and reconnects when needed.

    Every method raises StoreUnavailableError if containerd does not answer.
    """

    def __init__(self, socket_path: str, namespace: str) -> None:
        self._path, self._namespace = socket_path, namespace
        self._channel: Channel | None = None

    async def version(self) -> str:
        """The version of containerd, as text."""
        reply = await self._call(
            "/containerd.services.version.v1.Version/Version", Empty(), containerd_version_pb2.VersionResponse
        )
        return reply.version

    async def plugins(self, *filters: str) -> list[introspection_pb2.Plugin]:
        """The loaded plugins that match `filters` (containerd filter syntax), with their exports."""
        request = introspection_pb2.PluginsRequest(filters=filters)
        path = "/containerd.services.introspection.v1.Introspection/Plugins"
        return list((await self._call(path, request, introspection_pb2.PluginsResponse)).plugins)

    async def get_image(self, name: str) -> images_pb2.Image:
        """The image with this full name. Raises NotFoundError."""
        request = images_pb2.GetImageRequest(name=name)
        path = "/containerd.services.images.v1.Images/Get"
        return (await self._call(path, request, images_pb2.GetImageResponse)).image

    async def list_images(self) -> list[images_pb2.Image]:
        """All images of the namespace."""
        path = "/containerd.services.images.v1.Images/List"
        return list((await self._call(path, images_pb2.ListImagesRequest(), images_pb2.ListImagesResponse)).images)

    async def content_labels(self, digest: str) -> dict[str, str]:
        """The labels of the content with this digest. Raises NotFoundError."""
        request = content_pb2.InfoRequest(digest=digest)
        path = "/containerd.services.content.v1.Content/Info"
        return dict((await self._call(path, request, content_pb2.InfoResponse)).info.labels)

    async def events(self) -> AsyncIterator[events_pb2.Envelope]:
        """The events of all namespaces. Raises StoreUnavailableError when the connection ends."""
        method = UnaryStreamMethod(
            self._open(),
            "/containerd.services.events.v1.Events/Subscribe",
            events_pb2.SubscribeRequest,
            events_pb2.Envelope,
        )
        try:
            async with method.open(metadata=self._metadata) as stream:
                await stream.send_message(events_pb2.SubscribeRequest(), end=True)
                async for envelope in stream:
                    yield envelope
        except (OSError, GRPCError, ProtocolError, StreamTerminatedError, DecodeError) as error:
            raise StoreUnavailableError(f"event stream of {self._path} ended: {error!r}") from error

    async def runtime_status(self) -> dict[str, str]:
        """The `info` of a verbose CRI `Status`: JSON texts by name. `config` is the configuration of the runtime."""
        path = "/runtime.v1.RuntimeService/Status"
        return dict((await self._call(path, cri_pb2.StatusRequest(verbose=True), cri_pb2.StatusResponse)).info)

    async def pull_image(self, image: str, login: tuple[str, str] | None = None) -> str:
        """Pull an image through CRI, as the kubelet does; returns the image id. `login` is a user and a password.

        Waits up to PULL_SECONDS_MAX. Raises NotFoundError or StoreUnavailableError with containerd's message.
        """
        request = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=image))
        if login:
            request.auth.username, request.auth.password = login
        path = "/runtime.v1.ImageService/PullImage"
        return (await self._call(path, request, cri_pb2.PullImageResponse, PULL_SECONDS_MAX)).image_ref

    async def remove_image(self, image: str) -> None:
        """Remove an image through CRI."""
        request = cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=image))
        await self._call("/runtime.v1.ImageService/RemoveImage", request, cri_pb2.RemoveImageResponse)

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        if self._channel:
            self._channel.close()
            self._channel = None

    @property
    def _metadata(self) -> dict[str, str]:
        return {"containerd-namespace": self._namespace}

    def _open(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(path=self._path)
        return self._channel

    async def _call(
        self, path: str, request: Request, reply: type[Reply], timeout_seconds: float = CALL_SECONDS_MAX
    ) -> Reply:
        method = UnaryUnaryMethod[Request, Reply](self._open(), path, type(request), reply)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await method(request, metadata=self._metadata)
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                raise NotFoundError(error.message or path) from error
            raise StoreUnavailableError(f"{path.rpartition('/')[2]}: {error.message or error.status.name}") from error
        except TimeoutError as error:
            raise StoreUnavailableError(f"{self._path} did not answer in {timeout_seconds:.0f} s") from error
        except (OSError, ProtocolError, StreamTerminatedError, DecodeError) as error:
            raise StoreUnavailableError(f"{self._path}: {getattr(error, 'strerror', None) or error}") from error
