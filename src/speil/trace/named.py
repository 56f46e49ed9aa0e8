"""The image and the platform of a trace, as people write them."""

from __future__ import annotations

from speil.oci.platform import Platform, PlatformError
from speil.oci.reference import InvalidReferenceError, Reference


class TraceError(ValueError):
    """What was asked for is no image. The message says what is wrong."""


def parse_reference(text: str) -> Reference:
    """An image as people write it: `busybox` is `docker.io/library/busybox:latest`. Raises TraceError."""
    text = text.strip()
    if not text:
        raise TraceError("no image is named: write it like docker.io/library/busybox:1.37")
    first, slash, _ = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        text = f"docker.io/{text}" if slash else f"docker.io/library/{text}"
    if "@" not in text and ":" not in text.rpartition("/")[2]:
        text = f"{text}:latest"
    try:
        return Reference.parse(text)
    except InvalidReferenceError as error:
        raise TraceError(str(error)) from error


def parse_platform(text: str) -> Platform | None:
    """`linux/arm64`; None for "". Raises TraceError."""
    try:
        return Platform.parse(text) if text else None
    except PlatformError as error:
        raise TraceError(str(error)) from error
