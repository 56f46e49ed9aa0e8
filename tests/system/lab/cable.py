"""Bytes on the wire: what passes the lab's bridge on a TCP port, by who sent it to whom.

Run as a script inside the hub: counts what comes in at the bridge's ports until it is told to end, then prints it.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.lab.namespaces import Namespace

STOP_SECONDS_MAX = 10
# all frames: what the bridge takes is never offered to those who ask for IP alone; OTHERHOST is what comes in at a port
_ETH_P_ALL, _ETH_P_IP, _OTHERHOST = 0x0003, b"\x08\x00", 3
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6
_BUFFER_BYTES = 256 << 20  # a burst must not be lost: then the count would prove nothing
_HEADER_BYTES = 14 + 60 + 60  # Ethernet, IPv4, TCP, at their longest


class Capture:
    """`bytes_between` is filled when the capture has ended."""

    def __init__(self) -> None:
        self.bytes_between: dict[tuple[str, str], int] = {}

    def total(self, senders: list[str], receivers: list[str]) -> int:
        """TCP payload from any of `senders` to any of `receivers` (addresses)."""
        return sum(size for (one, other), size in self.bytes_between.items() if one in senders and other in receivers)


@contextmanager
def capturing(hub: Namespace, port: int) -> Iterator[Capture]:
    """Count what is sent from and to `port` while the block runs."""
    capture = Capture()
    process = hub.popen([sys.executable, "-m", __name__, str(port)], stdout=subprocess.PIPE, text=False)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield capture
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=STOP_SECONDS_MAX)
        found = json.loads(output)
        assert not found["dropped"], "frames were lost to the capture"
        capture.bytes_between = {(sender, receiver): size for sender, receiver, size in found["counts"]}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _count(port: int) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        packets.settimeout(0.1)
        print("ready", flush=True)
        while not ended:
            try:
                frame, (_, _, kind, _, _) = packets.recvfrom(_HEADER_BYTES)
            except TimeoutError:
                continue
            if kind != _OTHERHOST or frame[12:14] != _ETH_P_IP or frame[23] != socket.IPPROTO_TCP:
                continue
            tcp = 14 + (frame[14] & 15) * 4
            ports = {int.from_bytes(frame[tcp : tcp + 2]), int.from_bytes(frame[tcp + 2 : tcp + 4])}
            payload = int.from_bytes(frame[16:18]) - (tcp - 14) - (frame[tcp + 12] >> 4) * 4
            if port in ports and payload > 0:
                counts[socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])] += payload
        _, dropped = struct.unpack("II", packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(json.dumps({"dropped": dropped, "counts": [[*pair, size] for pair, size in counts.items()]}))


if __name__ == "__main__":
    _count(int(sys.argv[1]))
