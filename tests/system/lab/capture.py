"""What the router recorded: every packet that went from one of the lab's networks to another."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

TCP, UDP = 6, 17
_HEADER, _RECORD = 24, 16


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet; ports are 0 where the protocol has none, `payload` is what TCP or UDP carry."""

    source: str
    source_port: int
    target: str
    target_port: int
    protocol: int
    payload: bytes


class Capture:
    """Reads the router's file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def started(self) -> bool:
        """Whether the router is at work."""
        return self._path.exists()

    def mark(self) -> int:
        """A place in it: now."""
        return max(self._path.stat().st_size, _HEADER)

    def since(self, mark: int) -> list[Packet]:
        """The packets from `mark` on; one that is being written is left out."""
        with self._path.open("rb") as file:
            file.seek(mark)
            data = file.read()
        packets, at = [], 0
        while at + _RECORD <= len(data):
            (size,) = struct.unpack_from("<I", data, at + 8)
            if at + _RECORD + size > len(data):
                break
            packets.append(parse_packet(data[at + _RECORD : at + _RECORD + size]))
            at += _RECORD + size
        return packets


def parse_packet(packet: bytes) -> Packet:
    """An IPv4 packet from its first byte on."""
    header = (packet[0] & 15) * 4
    protocol = packet[9]
    source, target = (str(IPv4Address(packet[start : start + 4])) for start in (12, 16))
    body = packet[header : struct.unpack_from("!H", packet, 2)[0]]
    if protocol not in (TCP, UDP):
        return Packet(source, 0, target, 0, protocol, body)
    source_port, target_port = struct.unpack_from("!HH", body)
    offset = (body[12] >> 4) * 4 if protocol == TCP else 8
    return Packet(source, source_port, target, target_port, protocol, body[offset:])
