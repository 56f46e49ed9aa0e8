"""multistream-select 1.0: agree on a protocol by name.

Each message is a varint length, the name and a newline. A dialer sends its header and its proposal in one piece and
waits for both echoes; a listener echoes protocols that it knows and answers `na` to others.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from speil.libp2p.error import PeerMisbehavedError, ProtocolNotSupportedError
from speil.multiformats import varint
from speil.multiformats.error import FormatError

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
MESSAGE_BYTES_MAX = 1024  # the spec's bound; protocol ids have tens
PROPOSALS_MAX = 16  # a dialer that needs more has no protocol in common


class ByteStream(Protocol):
    """A connection or stream to negotiate on."""

    async def read_exactly(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Libp2pError."""

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises Libp2pError."""


def encode(*names: str) -> bytes:
    """The messages for `names`."""
    return b"".join(varint.encode(len(name) + 1) + name.encode() + b"\n" for name in names)


async def read_name(stream: ByteStream) -> str:
    """The next message's name. Raises PeerMisbehavedError."""
    head = b""
    while (found := _decode_length(head)) is None:
        head += await stream.read_exactly(1)
    size, _ = found
    if not 0 < size <= MESSAGE_BYTES_MAX:
        raise PeerMisbehavedError("bad_multistream", f"a message of {size} bytes")
    line = await stream.read_exactly(size)
    if line[-1:] != b"\n" or not line.isascii():
        raise PeerMisbehavedError("bad_multistream", "a message without its newline")
    return line[:-1].decode()


def _decode_length(head: bytes) -> tuple[int, int] | None:
    try:
        return varint.decode(head)
    except FormatError as error:
        raise PeerMisbehavedError("bad_multistream", str(error)) from error


async def expect(stream: ByteStream, protocol: str) -> None:
    """Read both echoes of what `encode(HEADER, protocol)` proposed.

    Raises ProtocolNotSupportedError, PeerMisbehavedError.
    """
    if (header := await read_name(stream)) != HEADER:
        raise PeerMisbehavedError("bad_multistream", f"a header {header[:50]!r}")
    if (answer := await read_name(stream)) != protocol:
        if answer == NOT_AVAILABLE:
            raise ProtocolNotSupportedError(protocol)
        raise PeerMisbehavedError("bad_multistream", f"an answer {answer[:50]!r}")


async def propose(stream: ByteStream, protocol: str) -> None:
    """Agree on `protocol` as the dialer. Raises ProtocolNotSupportedError, PeerMisbehavedError."""
    await stream.write(encode(HEADER, protocol))
    await expect(stream, protocol)


async def accept(stream: ByteStream, supported: Collection[str]) -> str:
    """Agree on one of `supported` as the listener; the one agreed on. Raises PeerMisbehavedError."""
    if (header := await read_name(stream)) != HEADER:
        raise PeerMisbehavedError("bad_multistream", f"a header {header[:50]!r}")
    await stream.write(encode(HEADER))
    for _ in range(PROPOSALS_MAX):
        if (name := await read_name(stream)) in supported:
            await stream.write(encode(name))
            return name
        await stream.write(encode(NOT_AVAILABLE))
    raise PeerMisbehavedError("bad_multistream", f"{PROPOSALS_MAX} proposals of unknown protocols")
