"""Noise (libp2p noise spec): proves the identity of the peer and gives ciphers for the session. Bytes in, bytes out.

    initiator                                    responder
      -> e                                         message 1
      <- e, ee, s, es, payload                     message 2
      -> s, se, payload                            message 3

`Noise_XX_25519_ChaChaPoly_SHA256`, and with pre-shared keys `Noise_XXpsk3_…`: then only a peer with the key can read
the third message and everything after it (Noise spec §9). The payload carries the identity key, its signature over the
static key of this handshake, and the offered muxers (early negotiation), which saves a round trip.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from google.protobuf.message import DecodeError

from speil.libp2p._pb import noise_pb2
from speil.libp2p.error import PeerMisbehavedError
from speil.libp2p.identity import Identity
from speil.libp2p.public_key import verify
from speil.multiformats.error import FormatError
from speil.multiformats.peer_id import PeerId

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
PSK_PROTOCOL_NAME = b"Noise_XXpsk3_25519_ChaChaPoly_SHA256"
WRONG_SECRET, NO_SECRET = "wrong_secret", "no_secret"  # reasons of a PeerMisbehavedError
SIGNATURE_PREFIX = b"noise-libp2p-static-key:"
MESSAGE_BYTES_MAX = 65535  # the length prefix has two bytes
PLAINTEXT_BYTES_MAX = MESSAGE_BYTES_MAX - 16
HANDSHAKE_MESSAGE_BYTES_MAX = 4096  # speil sends 250; an RSA identity needs under 1500
_KEY_BYTES, _TAG_BYTES = 32, 16
_NONCES_MAX = 2**64 - 1


def _bad(message: str) -> PeerMisbehavedError:
    return PeerMisbehavedError("bad_noise", message)


class CipherState:
    """One direction's key and counter (Noise spec §5.1)."""

    __slots__ = ("_aead", "_nonce")

    def __init__(self, key: bytes) -> None:
        self._aead, self._nonce = ChaCha20Poly1305(key), 0

    def encrypt(self, plaintext: bytes, associated: bytes | None = None) -> bytes:
        """Ciphertext and tag."""
        return self._aead.encrypt(self._next(), plaintext, associated)

    def decrypt(self, ciphertext: bytes, associated: bytes | None = None) -> bytes:
        """Plaintext. Raises PeerMisbehavedError on a wrong tag."""
        try:
            return self._aead.decrypt(self._next(), ciphertext, associated)
        except InvalidTag as error:
            raise _bad("a message fails authentication") from error

    def _next(self) -> bytes:
        nonce, self._nonce = self._nonce, self._nonce + 1
        if nonce >= _NONCES_MAX:
            raise _bad("out of nonces")
        return struct.pack("<4xQ", nonce)


class SymmetricState:
    """The handshake's running hash and chaining key (Noise spec §5.2)."""

    def __init__(self, protocol_name: bytes) -> None:
        name = protocol_name
        self._hash = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self._chaining_key, self._cipher = self._hash, None
        self.mix_hash(b"")  # an empty prologue

    _cipher: CipherState | None

    def mix_hash(self, data: bytes) -> None:
        """Mix public data into the hash."""
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Mix a shared secret into the keys."""
        self._chaining_key, key = self._derive(secret, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Mix a pre-shared key into keys and hash (Noise spec §9.1)."""
        self._chaining_key, mixed, key = self._derive(secret, 3)
        self.mix_hash(mixed)
        self._cipher = CipherState(key)

    def copy(self) -> SymmetricState:
        """A copy, to try a key with."""
        return copy.copy(self)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt if there is a key. The result is mixed into the hash."""
        out = self._cipher.encrypt(plaintext, self._hash) if self._cipher else plaintext
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, received: bytes) -> bytes:
        """The inverse of `encrypt_and_hash`. Raises PeerMisbehavedError."""
        out = self._cipher.decrypt(received, self._hash) if self._cipher else received
        self.mix_hash(received)
        return out

    def split(self) -> tuple[CipherState, CipherState]:
        """The initiator's sending and receiving cipher."""
        first, second = self._derive(b"", 2)
        return CipherState(first), CipherState(second)

    def _derive(self, secret: bytes, count: int) -> list[bytes]:
        temporary = hmac.digest(self._chaining_key, secret, "sha256")
        derived = [b""]
        for number in range(1, count + 1):
            derived.append(hmac.digest(temporary, derived[-1] + bytes((number,)), "sha256"))
        return derived[1:]


@dataclass(frozen=True, slots=True)
class Remote:
    """The peer that the handshake proved, and the muxers that it offered."""

    peer_id: PeerId
    public_key: bytes
    muxers: tuple[str, ...]


class Handshake:
    """The three messages, in order; each call raises PeerMisbehavedError where the peer erred.

    With pre-shared keys an initiator uses the first of them, a responder whichever the initiator used.
    """

    def __init__(self, identity: Identity, muxers: tuple[str, ...], psks: tuple[bytes, ...] = ()) -> None:
        self._state, self._psks = SymmetricState(PSK_PROTOCOL_NAME if psks else PROTOCOL_NAME), psks
        self._ephemeral, self._static = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._static_public = self._static.public_key().public_bytes_raw()
        self._payload = noise_pb2.NoiseHandshakePayload(
            identity_key=identity.public_key,
            identity_sig=identity.sign(SIGNATURE_PREFIX + self._static_public),
            extensions=noise_pb2.NoiseExtensions(stream_muxers=muxers),
        ).SerializeToString()
        self._remote_ephemeral = b""

    def write_message_1(self) -> bytes:
        """-> e"""
        return self._write_ephemeral() + self._state.encrypt_and_hash(b"")

    def read_message_1(self, message: bytes) -> None:
        """-> e"""
        self._read_ephemeral(message)
        self._state.decrypt_and_hash(message[_KEY_BYTES:])

    def write_message_2(self) -> bytes:
        """<- e, ee, s, es, payload"""
        own = self._write_ephemeral()
        self._state.mix_key(_exchange(self._ephemeral, self._remote_ephemeral))
        static = self._state.encrypt_and_hash(self._static_public)
        self._state.mix_key(_exchange(self._static, self._remote_ephemeral))
        return own + static + self._state.encrypt_and_hash(self._payload)

    def read_message_2(self, message: bytes) -> Remote:
        """<- e, ee, s, es, payload"""
        self._read_ephemeral(message)
        self._state.mix_key(_exchange(self._ephemeral, self._remote_ephemeral))
        rest = message[_KEY_BYTES:]
        static = self._state.decrypt_and_hash(rest[: _KEY_BYTES + _TAG_BYTES])
        self._state.mix_key(_exchange(self._ephemeral, static))
        return _identify(self._state.decrypt_and_hash(rest[_KEY_BYTES + _TAG_BYTES :]), static)

    def write_message_3(self) -> bytes:
        """-> s, se, payload"""
        static = self._state.encrypt_and_hash(self._static_public)
        self._state.mix_key(_exchange(self._static, self._remote_ephemeral))
        if self._psks:
            self._state.mix_key_and_hash(self._psks[0])
        return static + self._state.encrypt_and_hash(self._payload)

    def read_message_3(self, message: bytes) -> Remote:
        """-> s, se, payload. PeerMisbehavedError `wrong_secret`: none of the pre-shared keys was used."""
        static = self._state.decrypt_and_hash(message[: _KEY_BYTES + _TAG_BYTES])
        self._state.mix_key(_exchange(self._ephemeral, static))
        payload = message[_KEY_BYTES + _TAG_BYTES :]
        if not self._psks:
            return _identify(self._state.decrypt_and_hash(payload), static)
        before = self._state
        for psk in self._psks:
            self._state = before.copy()
            self._state.mix_key_and_hash(psk)
            try:
                return _identify(self._state.decrypt_and_hash(payload), static)
            except PeerMisbehavedError:
                continue
        raise PeerMisbehavedError(WRONG_SECRET, "the peer does not hold the region's secret")

    def split(self, *, initiator: bool) -> tuple[CipherState, CipherState]:
        """(sending, receiving) cipher, once all three messages are through."""
        first, second = self._state.split()
        return (first, second) if initiator else (second, first)

    def _write_ephemeral(self) -> bytes:
        own = self._ephemeral.public_key().public_bytes_raw()
        self._mix_ephemeral(own)
        return own

    def _mix_ephemeral(self, public: bytes) -> None:
        self._state.mix_hash(public)
        if self._psks:
            self._state.mix_key(public)  # so that a pre-shared key never encrypts twice alike (Noise spec §9.2)

    def _read_ephemeral(self, message: bytes) -> None:
        if len(message) < _KEY_BYTES:
            raise _bad("a handshake message is too short")
        self._remote_ephemeral = message[:_KEY_BYTES]
        self._mix_ephemeral(self._remote_ephemeral)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise _bad(f"a bad public key: {error}") from error


def _identify(payload: bytes, static: bytes) -> Remote:
    try:
        message = noise_pb2.NoiseHandshakePayload.FromString(payload)
        peer_id = PeerId.of_public_key(message.identity_key)
    except (DecodeError, FormatError) as error:
        raise _bad("the handshake payload is malformed") from error
    verify(message.identity_key, message.identity_sig, SIGNATURE_PREFIX + static)
    return Remote(peer_id, message.identity_key, tuple(message.extensions.stream_muxers))


class Session:
    """Both ciphers: plaintext to frames and back, however the bytes are cut."""

    __slots__ = ("_buffer", "_receiving", "_sending")

    def __init__(self, sending: CipherState, receiving: CipherState) -> None:
        self._sending, self._receiving, self._buffer = sending, receiving, bytearray()

    @property
    def pending_bytes(self) -> int:
        """Received bytes of a frame that is not complete."""
        return len(self._buffer)

    def seal(self, plaintext: bytes) -> bytes:
        """Length-prefixed frames that hold `plaintext`."""
        out: list[bytes] = []
        for start in range(0, len(plaintext), PLAINTEXT_BYTES_MAX):
            sealed = self._sending.encrypt(plaintext[start : start + PLAINTEXT_BYTES_MAX])
            out += (len(sealed).to_bytes(2, "big"), sealed)
        return b"".join(out)

    def open(self, data: bytes) -> bytes:
        """The plaintext of all complete frames; the rest, under one frame, is kept. Raises PeerMisbehavedError."""
        buffer, offset = self._buffer, 0
        out: list[bytes] = []
        buffer += data
        while len(buffer) - offset >= 2:
            end = offset + 2 + int.from_bytes(buffer[offset : offset + 2], "big")
            if len(buffer) < end:
                break
            out.append(self._receiving.decrypt(bytes(buffer[offset + 2 : end])))
            offset = end
        del buffer[:offset]
        return out[0] if len(out) == 1 else b"".join(out)
