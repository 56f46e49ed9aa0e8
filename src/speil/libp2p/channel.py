"""From raw bytes to a yamux session: negotiation, handshake, then decrypted frames.

During the handshake a coroutine reads what it needs, limited to a few kilobytes. Afterwards received bytes are
decrypted and passed on at once, without a task in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p import multistream
from speil.libp2p.error import ConnectionClosedError, PeerMisbehavedError, ProtocolNotSupportedError
from speil.libp2p.identity import Identity
from speil.libp2p.noise import HANDSHAKE_MESSAGE_BYTES_MAX, NO_SECRET, Handshake, Remote, Session
from speil.libp2p.transport import RawConnection

NOISE, YAMUX = "/noise", "/yamux/1.0.0"
NOISE_PSK = "/speil/noise-xxpsk3/1.0.0"  # the only one with a region secret
EARLY_BYTES_MAX = 64 * 1024  # a peer may send its first streams right after its handshake


class Channel:
    """A raw connection: `upgrade` it, then `start` to get the plaintext. `on_closed` is called once at its end."""

    def __init__(self, raw: RawConnection, on_closed: Callable[[], None]) -> None:
        self._raw, self._on_closed = raw, on_closed
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._session: Session | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._closed = False
        self._failure: PeerMisbehavedError | None = None
        raw.attach(self._receive, self._lost)

    async def upgrade(self, identity: Identity, psks: tuple[bytes, ...], *, dialer: bool) -> Remote:
        """Noise, then yamux. Raises PeerMisbehavedError, ProtocolNotSupportedError, ConnectionClosedError.

        With pre-shared keys a peer without one is a PeerMisbehavedError `no_secret` or `wrong_secret`.
        """
        await self._agree_on_security(NOISE_PSK if psks else NOISE, dialer)
        remote = await self._handshake(identity, psks, dialer)
        if YAMUX not in remote.muxers:  # no early negotiation: a round of multistream, encrypted
            if dialer:
                await multistream.propose(self, YAMUX)
            else:
                await multistream.accept(self, (YAMUX,))
        return remote

    async def _agree_on_security(self, protocol: str, dialer: bool) -> None:
        if not dialer:
            # The other protocol is accepted too and refused afterwards: then this node knows why, and the peer does
            # not.
            if await multistream.accept(self, (NOISE, NOISE_PSK)) != protocol:
                raise PeerMisbehavedError(NO_SECRET, "one side has a region secret, the other has none")
            return
        try:
            await multistream.propose(self, protocol)
        except ProtocolNotSupportedError as error:
            if protocol == NOISE:
                raise
            raise PeerMisbehavedError(NO_SECRET, "the peer has no region secret") from error

    async def _handshake(self, identity: Identity, psks: tuple[bytes, ...], dialer: bool) -> Remote:
        handshake = Handshake(identity, (YAMUX,), psks)
        if dialer:
            self._send_handshake(handshake.write_message_1())
            remote = handshake.read_message_2(await self._read_handshake())
            self._send_handshake(handshake.write_message_3())
        else:
            handshake.read_message_1(await self._read_handshake())
            self._send_handshake(handshake.write_message_2())
            remote = handshake.read_message_3(await self._read_handshake())
        session = Session(*handshake.split(initiator=dialer))
        ciphertext, self._buffer = bytes(self._buffer), bytearray()
        self._buffer += session.open(ciphertext)
        self._session = session
        return remote

    def _send_handshake(self, message: bytes) -> None:
        self._raw.write(len(message).to_bytes(2, "big") + message)

    async def _read_handshake(self) -> bytes:
        size = int.from_bytes(await self.read_exactly(2), "big")
        if size > HANDSHAKE_MESSAGE_BYTES_MAX:
            raise PeerMisbehavedError("bad_noise", f"a handshake message of {size} bytes")
        return await self.read_exactly(size)

    def start(self, sink: Callable[[bytes], None]) -> None:
        """Pass plaintext to `sink` as it arrives, first what was received already."""
        self._sink = sink
        self._raw.pause(False)
        if self._buffer:
            early, self._buffer = bytes(self._buffer), bytearray()
            sink(early)

    async def read_exactly(self, size: int) -> bytes:
        """Exactly `size` bytes of plaintext. Only before `start`. Raises PeerMisbehavedError, ConnectionClosedError."""
        while len(self._buffer) < size:
            if self._failure:
                raise self._failure
            if self._closed:
                raise ConnectionClosedError("closed during the handshake")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        """Queue plaintext; a coroutine for `multistream.ByteStream`."""
        self.send(data)

    def send(self, data: bytes) -> None:
        """Queue plaintext."""
        self._raw.write(self._session.seal(data) if self._session else data)

    async def drain(self) -> None:
        """Wait until the write buffer has room. Raises ConnectionClosedError."""
        await self._raw.drain()

    def close(self) -> None:
        """Send what is queued, then close."""
        self._raw.close()

    def abort(self) -> None:
        """Close now."""
        self._raw.abort()

    def _receive(self, data: bytes) -> None:
        try:
            plaintext = self._session.open(data) if self._session else data
        except PeerMisbehavedError as error:
            self._failure = error
            self._raw.abort()
            return
        if self._sink:
            self._sink(plaintext)
            return
        self._buffer += plaintext
        if self._session is None and len(self._buffer) > EARLY_BYTES_MAX:
            self._failure = PeerMisbehavedError("bad_noise", "it sends more before the handshake has ended")
            self._raw.abort()
            return
        if len(self._buffer) > EARLY_BYTES_MAX:
            self._raw.pause(True)
        self._wake()

    def _lost(self) -> None:
        self._closed = True
        self._wake()
        self._on_closed()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def pending_bytes(self) -> int:
        """Received bytes of an encrypted frame that is not complete."""
        return self._session.pending_bytes if self._session else 0

    def pause(self, paused: bool) -> None:
        """Stop or continue reading from the network."""
        self._raw.pause(paused)

    @property
    def failure(self) -> PeerMisbehavedError | None:
        """The peer's violation of the protocol; None without one."""
        return self._failure
