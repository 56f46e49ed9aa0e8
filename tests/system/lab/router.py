"""The way between the lab's networks: a process that reads every packet, records it, holds it, and sends it on.

It runs in the router's namespace with nothing but Python. Whatever comes in on a bridge is routed into one TUN device,
and this is what reads it: a packet that is not in the capture did not get across. The kernel has no netem to delay
packets with; here they are held.

    python router.py TUN CAPTURE DELAY_SECONDS NETWORK …

Packets between two different networks of those named are held; all others go on at once. The capture is a pcap file.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from ipaddress import ip_network
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
LINKTYPE_RAW = 101
PACKET_BYTES_MAX = 65535
READS_PER_TURN_MAX = 64  # before packets that have been held long enough get their turn


def main(tun: str, capture: str, delay: str, *networks: str) -> None:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", tun.encode(), IFF_TUN | IFF_NO_PI))
    ranges = [(int(one.network_address), int(one.netmask)) for one in map(ip_network, networks)]

    def network_of(address: int) -> int:
        return next((number for number, (start, mask) in enumerate(ranges) if address & mask == start), -1)

    held: deque[tuple[float, bytes]] = deque()
    with Path(capture).open("wb", buffering=0) as record:
        record.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, PACKET_BYTES_MAX, LINKTYPE_RAW))
        while True:
            wait = max(held[0][0] - time.monotonic(), 0) if held else None
            select.select([device], [], [], wait)
            for _ in range(READS_PER_TURN_MAX):
                try:
                    packet = os.read(device, PACKET_BYTES_MAX)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue  # the lab speaks IPv4; nothing else is sent on
                now = time.time()
                size = len(packet)
                # recorded before it is sent on: what has arrived somewhere is in the file
                record.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), size, size) + packet)
                source, target = struct.unpack_from("!II", packet, 12)
                ends = network_of(source), network_of(target)
                if -1 in ends or ends[0] == ends[1]:
                    os.write(device, packet)
                else:
                    held.append((time.monotonic() + float(delay), packet))
            while held and held[0][0] <= time.monotonic():
                os.write(device, held.popleft()[1])


main(*sys.argv[1:])
