"""The region's secret, and the keys that are derived from it.

The file has one or more lines. The first line signs, every line verifies. So a new secret can be rolled out as a second
line before it signs, and an old one removed later. Each key is derived for one purpose and one region: two regions with
the same secret by mistake still keep each other out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

SECRETS_MAX = 8  # a rotation needs two; each line costs one more try in a handshake
CHARS_MIN, CHARS_MAX = 16, 1024
_NOISE, _NODE = b"speil noise psk 1", b"speil node token 2"
_PEER, _ANSWER = b"speil peer token 2", b"speil answer proof 1"
_SHARED_PEER, _SHARED_ANSWER = b"speil basic auth peer token 1", b"speil basic auth answer proof 1"


class SecretError(ValueError):
    """The secret can't be used. The message has the reason and never the secret."""


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """Keys that authenticate requests and responses between nodes, one a line of the secret, the signing one first."""

    requests: tuple[bytes, ...] = field(repr=False)
    answers: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegionSecret:
    """Keys by purpose, one a line of the secret, the signing one first."""

    noise_keys: tuple[bytes, ...] = field(repr=False)
    peer_keys: tuple[bytes, ...] = field(repr=False)
    node_keys: tuple[bytes, ...] = field(repr=False)
    answer_keys: tuple[bytes, ...] = field(repr=False)

    @property
    def peers(self) -> PeerKeys:
        """The keys of requests and responses between nodes."""
        return PeerKeys(self.peer_keys, self.answer_keys)


def parse(text: str, region: str) -> RegionSecret:
    """The keys of `region` from the lines of a secret file. Raises SecretError."""
    lines = [line.strip() for line in text.splitlines()]
    secrets = [line for line in lines if line]
    if not secrets:
        raise SecretError("it is empty: write a line such as `openssl rand -hex 32` prints")
    if len(secrets) > SECRETS_MAX:
        raise SecretError(f"it has {len(secrets)} lines; keep at most {SECRETS_MAX}, the one that signs first")
    for number, line in enumerate(lines, 1):
        if line and not CHARS_MIN <= len(line) <= CHARS_MAX:
            raise SecretError(
                f"line {number} has {len(line)} characters; use {CHARS_MIN} to {CHARS_MAX}, "
                "such as `openssl rand -hex 32` prints"
            )
    if len(set(secrets)) < len(secrets):
        raise SecretError("it has the same line twice")

    def keys(purpose: bytes) -> tuple[bytes, ...]:
        return tuple(_key(secret.encode(), purpose, region) for secret in secrets)

    return RegionSecret(keys(_NOISE), keys(_PEER), keys(_NODE), keys(_ANSWER))


def of_credentials(stretched: bytes, region: str) -> PeerKeys:
    """The keys of nodes that have the same basic auth and no secret.

    `stretched` is the result of a slow key derivation from the password. So whoever has recorded a token can't use it
    to try passwords quickly.
    """
    return PeerKeys((_key(stretched, _SHARED_PEER, region),), (_key(stretched, _SHARED_ANSWER, region),))


def _key(secret: bytes, purpose: bytes, region: str) -> bytes:
    return hmac.digest(secret, purpose + b"\0" + region.encode(), "sha256")
