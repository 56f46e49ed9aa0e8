"""Multiaddrs (multiformats/multiaddr): self-describing network addresses such as `/ip4/10.0.0.7/tcp/5001/p2p/12D3…`.

speil uses TCP, so it understands `ip4`, `ip6`, `dns`/`dns4`/`dns6`, `tcp`, `udp` and `p2p`, and the flags that other
peers list after them (`quic-v1`, `ws`, …). An unknown protocol code can't be skipped, because its length is unknown.
Such an address is a FormatError, and callers drop only the address, not the message that it was in.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

from speil.multiformats import varint
from speil.multiformats.error import FormatError
from speil.multiformats.peer_id import PeerId

_CODES = {
    "ip4": 4, "tcp": 6, "ip6": 41, "ip6zone": 42, "dns": 53, "dns4": 54, "dns6": 55, "dnsaddr": 56, "udp": 273,
    "p2p-circuit": 290, "p2p": 421, "quic": 460, "quic-v1": 461, "webtransport": 465, "ws": 477, "wss": 478,
    "tls": 448, "noise": 454, "certhash": 466, "webrtc-direct": 280,
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}
_NO_VALUE = {"p2p-circuit", "quic", "quic-v1", "webtransport", "ws", "wss", "tls", "noise", "webrtc-direct"}
_TEXT = {"dns", "dns4", "dns6", "dnsaddr", "ip6zone"}
COMPONENTS_MAX = 16  # real addresses have three to six
ENCODED_MAX = 1024  # addresses whose binary form is kept: each answer of the DHT names the same twenty of a region's


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """An address as its (protocol, value) components; the value is text, empty for flags."""

    components: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """From `/ip4/…` text. Raises FormatError that names the part which is wrong."""
        if not text.startswith("/") or len(text) < 2:
            raise FormatError(f"multiaddr {text!r} does not start with '/' and a protocol")
        parts = text[1:].rstrip("/").split("/")
        found: list[tuple[str, str]] = []
        index = 0
        while index < len(parts):
            name = "p2p" if parts[index] == "ipfs" else parts[index]
            if name not in _CODES:
                raise FormatError(f"multiaddr {text!r}: unknown protocol {name!r}")
            index += 1
            value = ""
            if name not in _NO_VALUE:
                if index >= len(parts):
                    raise FormatError(f"multiaddr {text!r}: {name} has no value")
                value = parts[index]
                index += 1
            found.append((name, value))
        address = cls(tuple(found))
        return cls.decode(address.encode())  # one validation for both forms, and canonical text

    @classmethod
    def decode(cls, data: bytes) -> Multiaddr:
        """From the binary form. Raises FormatError."""
        offset = 0
        found: list[tuple[str, str]] = []
        while offset < len(data):
            if len(found) == COMPONENTS_MAX:
                raise FormatError(f"multiaddr has more than {COMPONENTS_MAX} components")
            code, offset = varint.take(data, offset)
            if (name := _NAMES.get(code)) is None:
                raise FormatError(f"multiaddr: unknown protocol code {code}")
            value, offset = _decode_value(name, data, offset)
            found.append((name, value))
        if not found:
            raise FormatError("multiaddr is empty")
        return cls(tuple(found))

    @classmethod
    def of_tcp(cls, host: str, port: int, peer_id: PeerId | None = None) -> Multiaddr:
        """`/ip4|ip6|dns/<host>/tcp/<port>[/p2p/<peer_id>]`."""
        try:
            name = f"ip{ipaddress.ip_address(host).version}"
        except ValueError:
            name = "dns"
        tail = f"/p2p/{peer_id}" if peer_id else ""
        return cls.parse(f"/{name}/{host}/tcp/{port}{tail}")

    def encode(self) -> bytes:
        """The binary form. Raises FormatError when a value does not fit its protocol."""
        return _encoded(self.components)

    @property
    def tcp(self) -> tuple[str, int] | None:
        """(host, port) of a plain TCP address, None for anything else (QUIC, relays, websockets)."""
        match self.without_peer_id.components:
            case ((("ip4" | "ip6" | "dns" | "dns4" | "dns6"), host), ("tcp", port)):
                return host, int(port)
        return None

    @property
    def host(self) -> str:
        """The value of its first component: an IP address or a name."""
        return self.components[0][1]

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address at its start; None for a name."""
        name, value = self.components[0]
        return ipaddress.ip_address(value) if name in ("ip4", "ip6") else None

    @property
    def peer_id(self) -> PeerId | None:
        """The peer id at its end; None without one."""
        name, value = self.components[-1]
        return PeerId.parse(value) if name == "p2p" else None

    @property
    def without_peer_id(self) -> Multiaddr:
        """The address without `/p2p`."""
        if self.components[-1][0] == "p2p" and len(self.components) > 1:
            return Multiaddr(self.components[:-1])
        return self

    def with_peer_id(self, peer_id: PeerId) -> Multiaddr:
        """The address with `/p2p/<peer_id>` at its end."""
        return Multiaddr((*self.without_peer_id.components, ("p2p", str(peer_id))))

    def __str__(self) -> str:
        return "".join(f"/{name}/{value}" if value else f"/{name}" for name, value in self.components)


@lru_cache(ENCODED_MAX)
def _encoded(components: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join(varint.encode(_CODES[name]) + _encode_value(name, value) for name, value in components)


def _decode_value(name: str, data: bytes, offset: int) -> tuple[str, int]:
    if name in _NO_VALUE:
        return "", offset
    if name in ("ip4", "ip6", "tcp", "udp"):
        size = {"ip4": 4, "ip6": 16}.get(name, 2)
        raw = data[offset : offset + size]
        if len(raw) != size:
            raise FormatError(f"multiaddr: {name} is cut off")
        value = str(ipaddress.ip_address(raw)) if name[:2] == "ip" else str(struct.unpack(">H", raw)[0])
        return value, offset + size
    size, offset = varint.take(data, offset)
    raw = data[offset : offset + size]
    if len(raw) != size or not raw:
        raise FormatError(f"multiaddr: {name} is cut off")
    offset += size
    if name == "p2p":
        return str(PeerId(raw)), offset
    if name in _TEXT:
        try:
            text = raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise FormatError(f"multiaddr: {name} is not ASCII") from error
        if "/" in text or not text.isprintable():
            raise FormatError(f"multiaddr: {name} value {text!r}")
        return text, offset
    return raw.hex(), offset


def _encode_value(name: str, value: str) -> bytes:
    if name in _NO_VALUE:
        return b""
    if name in ("ip4", "ip6"):
        try:
            packed = ipaddress.ip_address(value).packed
        except ValueError as error:
            raise FormatError(f"multiaddr: {value!r} is not an {name} address") from error
        if len(packed) != (4 if name == "ip4" else 16):
            raise FormatError(f"multiaddr: {value!r} is not an {name} address")
        return packed
    if name in ("tcp", "udp"):
        if not (value.isascii() and value.isdigit() and int(value) < 1 << 16):
            raise FormatError(f"multiaddr: {value!r} is not a {name} port")
        return struct.pack(">H", int(value))
    if name == "p2p":
        raw = PeerId.parse(value).multihash
    elif name in _TEXT:
        if not (value.isascii() and value):
            raise FormatError(f"multiaddr: {name} value {value!r}")
        raw = value.encode()
    else:
        try:
            raw = bytes.fromhex(value)
        except ValueError as error:
            raise FormatError(f"multiaddr: {name} value {value!r}") from error
    return varint.encode(len(raw)) + raw
