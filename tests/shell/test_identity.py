"""The node's key file: what it holds, what is read, what a crash leaves, and the messages for the operator."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from speil.libp2p import identity
from speil.libp2p._pb import keys_pb2
from speil.libp2p.identity import FILE_NAME, Identity, IdentityError, load_or_create

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEER_ID = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
# `openssl pkcs8` of that key, which is what Go's x509.MarshalPKCS8PrivateKey writes
SPEGELS = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


def _pem(
    key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def _protobuf(key_type: keys_pb2.KeyType, data: bytes) -> bytes:
    return keys_pb2.PrivateKey(type=key_type, data=data).SerializeToString()


SEED, PUBLIC = KEY.private_bytes_raw(), KEY.public_key().public_bytes_raw()
OLDER = _protobuf(keys_pb2.ED25519, SEED + PUBLIC)


def test_what_is_written_is_to_the_byte_what_spegel_writes(tmp_path: Path) -> None:
    assert Identity.of(KEY).encode() == SPEGELS
    made = load_or_create(tmp_path / "data")
    file = tmp_path / "data" / FILE_NAME
    assert file.read_bytes() == made.encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == [FILE_NAME]
    assert load_or_create(tmp_path / "data").peer_id == made.peer_id


def test_a_key_is_written_as_the_library_writes_it_and_read_without_its_parser() -> None:
    for _ in range(20):
        key = ed25519.Ed25519PrivateKey.generate()
        encoded = Identity.of(key).encode()
        assert encoded == _pem(key)
        assert Identity.decode(encoded).key.private_bytes_raw() == key.private_bytes_raw()
    program = f"""
import sys
from speil.libp2p.identity import Identity
Identity.decode({SPEGELS!r})
sys.exit("cryptography.hazmat.primitives.serialization" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "data",
    [
        SPEGELS,
        SPEGELS.replace(b"\n", b"\r\n"),
        b"\n# kept for the node\n" + SPEGELS + b"\n\n",
        SPEGELS.rstrip(),
        _protobuf(keys_pb2.ED25519, SEED),
        OLDER,
        _protobuf(keys_pb2.ED25519, SEED + PUBLIC + PUBLIC),  # of an old go-libp2p
    ],
)
def test_both_forms_are_read_and_pem_is_there_afterwards(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(data)
    file.chmod(0o600)
    assert str(load_or_create(tmp_path).peer_id) == PEER_ID
    assert file.read_bytes() == (data if b"BEGIN" in data else SPEGELS), "PEM is left as it was"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(load_or_create(tmp_path).peer_id) == PEER_ID


def test_an_older_form_that_can_not_be_written_anew_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE_NAME).write_bytes(OLDER)

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(identity, "_write", refuse)
    assert str(load_or_create(tmp_path).peer_id) == PEER_ID
    assert (tmp_path / FILE_NAME).read_bytes() == OLDER


def test_an_rsa_key_is_kept_and_told(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        test_what_is_no_key_of_a_node_is_kept_and_told(tmp_path, _pem(key, form), "of type RSA")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_pem(ec.generate_private_key(ec.SECP256R1())), "of type ECDSA"),
        (_pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL), "of type ECDSA"),
        (_pem(x25519.X25519PrivateKey.generate()), "of type X25519"),
        (_pem(KEY, encryption=BestAvailableEncryption(b"secret")), "encrypted with a password"),
        (KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "holds a public key"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "holds a certificate"),
        (SPEGELS[:60], "'PRIVATE KEY' can't be read"),
        (SPEGELS.replace(b"MC4C", b"AAAA"), "'PRIVATE KEY' can't be read"),
        (_protobuf(keys_pb2.RSA, b"x" * 600), "of type RSA"),
        (_protobuf(keys_pb2.ECDSA, b"x" * 120), "of type ECDSA"),
        (_protobuf(keys_pb2.SECP256K1, b"x" * 32), "of type SECP256K1"),
        (_protobuf(keys_pb2.ED25519, b"x" * 31), "its length is wrong"),
        (_protobuf(keys_pb2.ED25519, SEED + SEED), "does not belong to its private key"),
        (b"broken", "neither a PEM file nor"),
        (b"\x00" * 119, "neither a PEM file nor"),
        (b"\xff\xfe" + "-----BEGIN".encode("utf-16"), "neither a PEM file nor"),
        (b"x" * 20_000, "more than 16384 bytes"),
    ],
)
def test_what_is_no_key_of_a_node_is_kept_and_told(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(data)
    with pytest.raises(IdentityError) as caught:
        load_or_create(tmp_path)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == data


@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_end_in_anything_but_words(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        Identity.decode(data)


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "/dev/zero"])
def test_what_is_no_file_is_told_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE_NAME
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        case _:
            path.symlink_to(kind)
    with pytest.raises(IdentityError, match=r"private\.key can't be used: it is a .*Remove it for a new peer id"):
        load_or_create(tmp_path)


def test_what_a_killed_process_left_keeps_nobody_from_starting(tmp_path: Path) -> None:
    left = [tmp_path / f".{FILE_NAME}.{os.getpid()}", tmp_path / f".{FILE_NAME}.1", tmp_path / f".{FILE_NAME}.young"]
    for file in left:
        file.write_bytes(b"")
    for file in left[:2]:
        os.utime(file, (0, 0))
    assert load_or_create(tmp_path).peer_id == load_or_create(tmp_path).peer_id
    assert sorted(one.name for one in tmp_path.iterdir()) == [f".{FILE_NAME}.young", FILE_NAME]


def test_an_empty_file_is_no_key_and_costs_none(tmp_path: Path) -> None:
    """Spegel writes its key in place: killed at that moment it leaves an empty file."""
    (tmp_path / FILE_NAME).write_bytes(b"")
    assert load_or_create(tmp_path).peer_id == load_or_create(tmp_path).peer_id


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(IdentityError, match="Is --data-dir a directory this user may write"):
        load_or_create(tmp_path)
    assert not list(tmp_path.iterdir())
