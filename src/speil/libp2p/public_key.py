"""Signatures by public keys of peers (libp2p peer-ids spec), of all four types, because go-libp2p may use any."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from speil.libp2p._pb import keys_pb2
from speil.libp2p.error import PeerMisbehavedError

_RSA_BITS_MIN, _RSA_BITS_MAX = 2048, 8192  # go-libp2p's bounds: weak below, a CPU sink above


def verify(public_key: bytes, signature: bytes, data: bytes) -> None:
    """Check a signature by a protobuf `PublicKey`. Raises PeerMisbehavedError("bad_signature")."""
    try:
        key = keys_pb2.PublicKey.FromString(public_key)
        _verify(key.type, key.data, signature, data)
    except (DecodeError, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise PeerMisbehavedError("bad_signature", f"signature or key is wrong: {error!r}") from error


def _verify(kind: int, raw: bytes, signature: bytes, data: bytes) -> None:
    if kind == keys_pb2.ED25519:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
    else:
        _verify_other(kind, raw, signature, data)


def _verify_other(kind: int, raw: bytes, signature: bytes, data: bytes) -> None:
    """The types that neither speil nor Spegel use. What parses them costs 3 MiB of memory, so it is loaded here."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if kind == keys_pb2.SECP256K1:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), raw)
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    else:
        loaded = serialization.load_der_public_key(raw)
        if kind == keys_pb2.ECDSA and isinstance(loaded, ec.EllipticCurvePublicKey):
            loaded.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif kind == keys_pb2.RSA and isinstance(loaded, rsa.RSAPublicKey):
            if not _RSA_BITS_MIN <= loaded.key_size <= _RSA_BITS_MAX:
                raise ValueError(f"an RSA key of {loaded.key_size} bits")
            loaded.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise ValueError(f"key type {kind}")
