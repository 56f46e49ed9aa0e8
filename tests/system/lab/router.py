"""The way between the lab's networks: a process that reads every packet, records it, holds it, and sends it on.

It runs in the router's namespace with nothing but Python. Whatever comes in on a bridge is routed into one TUN device,
and this is what reads it: a packet that is not in the capture did not get across. The kernel has no netem to delay
and lose packets with; here they are held and dropped.

    python router.py TUN CAPTURE CONTROL DELAY_SECONDS NETWORK …

Packets between two different networks of those named are held; all others go on at once. The capture is a pcap file.
CONTROL is a Unix datagram socket: a JSON list of rules (`networks.Rule`) takes the place of those in force, and is
answered with "taken". A packet that several rules fit is held for the longest of their delays, and dropped by any.
"""

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from ipaddress import IPv4Address, ip_network
from itertools import count
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
LINKTYPE_RAW = 101
PACKET_BYTES_MAX = 65535
RULES_BYTES_MAX = 65535
READS_PER_TURN_MAX = 64  # before packets that have been held long enough get their turn


class Rules:
    """Which packets are held for how long, and which are lost."""

    def __init__(self, delay_seconds: float, networks: list[str]) -> None:
        self._delay_seconds = delay_seconds
        self._ranges = [(int(one.network_address), int(one.netmask)) for one in map(ip_network, networks)]
        self._rules: list[tuple[int, int, int, float, float]] = []

    def take(self, message: bytes) -> None:
        """Follow the rules of a message instead of those before."""
        self._rules = [
            (
                int(IPv4Address(rule["source"] or 0)),
                int(IPv4Address(rule["target"] or 0)),
                rule["port"],
                rule["delay_seconds"],
                rule["loss"],
            )
            for rule in json.loads(message)
        ]

    def delay_of(self, packet: bytes) -> float | None:
        """Seconds for which a packet is held, None where it is lost."""
        source, target = struct.unpack_from("!II", packet, 12)
        ends = self._network_of(source), self._network_of(target)
        held = 0.0 if -1 in ends or ends[0] == ends[1] else self._delay_seconds
        for of_source, of_target, port, delay, loss in self._rules:
            if (of_source and of_source != source) or (of_target and of_target != target):
                continue
            if port and port not in struct.unpack_from("!HH", packet, (packet[0] & 15) * 4):
                continue
            if random.random() < loss:
                return None
            held = max(held, delay)
        return held

    def _network_of(self, address: int) -> int:
        return next((number for number, (start, mask) in enumerate(self._ranges) if address & mask == start), -1)


def main(tun: str, capture: str, control_path: str, delay: str, *networks: str) -> None:
    """Pass packets on for ever."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", tun.encode(), IFF_TUN | IFF_NO_PI))
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(control_path)
    rules = Rules(float(delay), list(networks))
    held: list[tuple[float, int, bytes]] = []
    numbers = count()  # packets that are due at once go on in the order in which they came
    with Path(capture).open("wb", buffering=0) as record:
        record.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, PACKET_BYTES_MAX, LINKTYPE_RAW))
        while True:
            wait = max(held[0][0] - time.monotonic(), 0) if held else None
            ready, _, _ = select.select([device, control.fileno()], [], [], wait)
            if control.fileno() in ready:
                message, sender = control.recvfrom(RULES_BYTES_MAX)
                rules.take(message)
                control.sendto(b"taken", sender)
            for _ in range(READS_PER_TURN_MAX):
                try:
                    packet = os.read(device, PACKET_BYTES_MAX)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue  # the lab speaks IPv4; nothing else is sent on
                if (seconds := rules.delay_of(packet)) is None:
                    continue
                now = time.time()
                size = len(packet)
                # recorded before it is sent on: what has arrived somewhere is in the file
                record.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), size, size) + packet)
                if seconds:
                    heapq.heappush(held, (time.monotonic() + seconds, next(numbers), packet))
                else:
                    os.write(device, packet)
            while held and held[0][0] <= time.monotonic():
                os.write(device, heapq.heappop(held)[2])


if __name__ == "__main__":
    main(*sys.argv[1:])
