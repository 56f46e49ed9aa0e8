"""Who this node is: an Ed25519 key, kept across restarts in the data directory.

The file is libp2p's protobuf `PrivateKey` (go-libp2p's `MarshalPrivateKey`), as Spegel's `private.key` is, so a data
directory can move from one to the other. It is made atomically and readable by its owner alone. A file that can't be
read is never replaced: a new identity would look like a new peer, and the old one may be wanted back. A disk that is
full keeps no node from its work: it goes without a key of its own until the disk has room at a start.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from speil.libp2p._pb import keys_pb2
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log

FILE_NAME = "private.key"
_FILE_BYTES_MAX = 4096  # an Ed25519 key file has 68
_FULL = (errno.ENOSPC, errno.EDQUOT)

log = get_log("libp2p")


class IdentityError(Exception):
    """The key file can't be used; the operator has to look. The message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key, and what follows from it."""

    key: Ed25519PrivateKey
    public_key: bytes  # protobuf PublicKey
    peer_id: PeerId

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> Identity:
        """The identity of a key."""
        public = keys_pb2.PublicKey(type=keys_pb2.ED25519, data=key.public_key().public_bytes_raw())
        encoded = public.SerializeToString(deterministic=True)
        return cls(key, encoded, PeerId.of_public_key(encoded))

    @classmethod
    def generate(cls) -> Identity:
        """A new one."""
        return cls.of(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature."""
        return self.key.sign(data)

    def encode(self) -> bytes:
        """The protobuf PrivateKey: type, and the seed with the public key behind it."""
        raw = self.key.private_bytes_raw() + self.key.public_key().public_bytes_raw()
        return keys_pb2.PrivateKey(type=keys_pb2.ED25519, data=raw).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> Identity:
        """From `encode`. Raises ValueError."""
        try:
            message = keys_pb2.PrivateKey.FromString(data)
        except DecodeError as error:
            raise ValueError("it is not a libp2p private key") from error
        if message.type != keys_pb2.ED25519 or len(message.data) not in (32, 64, 96):
            raise ValueError("it is not an Ed25519 key")
        identity = cls.of(Ed25519PrivateKey.from_private_bytes(message.data[:32]))
        if message.data[32:64] not in (b"", identity.key.public_key().public_bytes_raw()):
            raise ValueError("its public key does not belong to its private key")
        return identity


def load_or_create(data_dir: Path | None) -> Identity:
    """The identity kept in `data_dir`, made on the first start; a passing one without a directory.

    Raises IdentityError.
    """
    if data_dir is None:
        return Identity.generate()
    path = data_dir / FILE_NAME
    identity = Identity.generate()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("rb") as file:
                return Identity.decode(file.read(_FILE_BYTES_MAX))
        _write(path, identity.encode())
    except ValueError as error:
        raise IdentityError(f"{path} can't be used: {error}. Restore it, or remove it for a new peer id.") from error
    except OSError as error:
        if error.errno in _FULL:
            log.warning("the node's key can't be kept: it will have another after a restart", path=path, error=error)
            return identity
        raise IdentityError(f"{path}: {error.strerror}. Is --data-dir a directory this user may write?") from error
    return identity


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
