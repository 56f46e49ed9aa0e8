"""The identity of this node: an Ed25519 key, kept across restarts in the data directory.

The file has Spegel's format, PKCS#8 in PEM, so a data directory can move between the two. The format of earlier
versions of speil, libp2p's protobuf `PrivateKey`, is read too and then rewritten as PEM. The file is written atomically
and only its owner can read it. A file that can't be read is never replaced: a new identity would look like a new peer,
and the operator may be able to repair the old one. A full disk does not stop a node from starting: it uses a new key
until there is room at a start.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from speil.libp2p._pb import keys_pb2
from speil.local_file import NotAFileError, read_file
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log

FILE_NAME = "private.key"
_FILE_BYTES_MAX = 16 * 1024  # an Ed25519 key takes 119 in PEM; an RSA key, which has its own error, a few thousand
_LEFT_OVER_SECONDS = 60.0  # an older temporary file is from a process that was killed while writing
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
# An Ed25519 key in PKCS#8 is these bytes and the key's 32 (RFC 8410, section 7). The library's parser of all formats
# costs a node 3 MiB of memory, so it is loaded for other keys only.
_ED25519_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
_ED25519_PEM = re.compile(rb"\s*-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=]{64})\s+-----END PRIVATE KEY-----\s*")

log = get_log("libp2p")


class IdentityError(Exception):
    """The key file can't be used. The message names the file and says what the operator can do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key with its public key and peer id."""

    key: Ed25519PrivateKey
    public_key: bytes  # protobuf PublicKey
    peer_id: PeerId

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> Identity:
        """From a private key."""
        public = keys_pb2.PublicKey(type=keys_pb2.ED25519, data=key.public_key().public_bytes_raw())
        encoded = public.SerializeToString(deterministic=True)
        return cls(key, encoded, PeerId.of_public_key(encoded))

    @classmethod
    def generate(cls) -> Identity:
        """A new random identity."""
        return cls.of(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of `data`."""
        return self.key.sign(data)

    def encode(self) -> bytes:
        """PKCS#8 in PEM, as Spegel stores it."""
        text = base64.b64encode(_ED25519_PKCS8 + self.key.private_bytes_raw())
        return b"-----BEGIN PRIVATE KEY-----\n" + text + b"\n-----END PRIVATE KEY-----\n"

    @classmethod
    def decode(cls, data: bytes) -> Identity:
        """From PEM (PKCS#8) or libp2p's protobuf PrivateKey. Raises ValueError with what was found instead."""
        if match := _PEM.search(data):
            return cls.of(_from_pem(data, match[1].decode()))
        return cls.of(_from_protobuf(data))


def is_pem(data: bytes) -> bool:
    """Whether the data of a key file is PEM."""
    return _PEM.search(data) is not None


def _from_pem(data: bytes, label: str) -> Ed25519PrivateKey:
    if "PRIVATE KEY" not in label:
        raise ValueError(f"it holds a {label.lower()}, not a private key")
    if (raw := _ed25519_bytes(data)) is not None:
        return Ed25519PrivateKey.from_private_bytes(raw)
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise ValueError("its private key is encrypted with a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"its PEM block {label!r} can't be read") from None
    if not isinstance(key, Ed25519PrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        kind = "ECDSA" if kind.startswith(("EC", "Elliptic")) else kind
        raise ValueError(f"it is not an Ed25519 key but one of type {kind}")
    return key


def _ed25519_bytes(pem: bytes) -> bytes | None:
    """The key in a file as `encode` writes it, None for any other."""
    if (block := _ED25519_PEM.fullmatch(pem)) is None:
        return None
    try:
        der = base64.b64decode(block[1], validate=True)
    except binascii.Error:
        return None
    return der[len(_ED25519_PKCS8) :] if len(der) == 48 and der.startswith(_ED25519_PKCS8) else None


def _from_protobuf(data: bytes) -> Ed25519PrivateKey:
    try:
        message = keys_pb2.PrivateKey.FromString(data)
    except DecodeError:
        raise ValueError("it is neither a PEM file nor a libp2p private key") from None
    if message.type != keys_pb2.ED25519:
        raise ValueError(f"it is not an Ed25519 key but one of type {_type_name(message.type)}")
    if len(message.data) not in (32, 64, 96):
        raise ValueError("it is not an Ed25519 key: its length is wrong")
    key = Ed25519PrivateKey.from_private_bytes(message.data[:32])
    if message.data[32:64] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError("its public key does not belong to its private key")
    return key


def _type_name(number: int) -> str:
    try:
        return str(keys_pb2.KeyType.Name(number))
    except ValueError:
        return str(number)


def load_or_create(data_dir: Path | None) -> Identity:
    """The identity stored in `data_dir`, made on the first start; without a directory a new one each time.

    Raises IdentityError.
    """
    if data_dir is None:
        return Identity.generate()
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        kept = _read(path)
    except OSError as error:
        if isinstance(error, NotAFileError) or error.errno == errno.EFBIG:
            raise IdentityError(f"{path} can't be used: {error.strerror}. Remove it for a new peer id.") from error
        raise IdentityError(f"{path}: {error.strerror}. Is --data-dir a directory this user may use?") from error
    if not kept:
        return _make(path)
    try:
        identity = Identity.decode(kept)
    except ValueError as error:
        raise IdentityError(f"{path} can't be used: {error}. Restore it, or remove it for a new peer id.") from error
    if not is_pem(kept):
        try:
            _write(path, identity.encode())
        except OSError as error:
            log.warning("node key can't be rewritten as PEM, Spegel can't read it", path=path, error=error)
    return identity


def _read(path: Path) -> bytes:
    """The file's bytes; empty where there is no file or an empty one. Raises OSError."""
    try:
        data = read_file(path, _FILE_BYTES_MAX).data
    except FileNotFoundError:
        return b""
    if not data:
        log.warning("node key file is empty, making a new key", path=path)
    return data


def _make(path: Path) -> Identity:
    identity = Identity.generate()
    try:
        _write(path, identity.encode())
    except OSError as error:
        if error.errno not in _FULL:
            raise IdentityError(f"{path}: {error.strerror}. Is --data-dir a directory this user may write?") from error
        log.warning("node key can't be stored, the next start makes another", path=path, error=error)
    return identity


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically, readable by its owner only. Raises OSError."""
    _remove_left_over(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    with contextlib.suppress(OSError):  # the file exists; some file systems can't sync a directory
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _remove_left_over(path: Path) -> None:
    """Remove old temporary files of killed processes. A younger one may be in use."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{path.name}.*"):
            if time.time() - left.lstat().st_mtime > _LEFT_OVER_SECONDS:
                left.unlink()
