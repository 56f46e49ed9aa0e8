"""What is measured and how: memory and CPU of a process from /proc, bytes and latency from a raw client.

The client is a plain socket. It drops body bytes in the kernel (MSG_TRUNC), so that it costs as little as a client
can and the server is what is measured.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CHUNK_BYTES = 1 << 20
PAUSE_SECONDS = 0.02
GIB = 1 << 30


def rss_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    return _rollup(pid, "Rss")


def anonymous_mib(pid: int) -> float:
    """The part of it that no file backs, MiB."""
    return _rollup(pid, "Anonymous")


def _rollup(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {field} for process {pid}")


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that processes have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def loopback_sent() -> tuple[int, int]:
    """Bytes and packets that this machine has sent to itself so far, link headers included."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    fields = line.partition(":")[2].split()
    return int(fields[8]), int(fields[9])


@dataclass(frozen=True, slots=True)
class Download:
    """One GET: seconds, body bytes, and CPU seconds of each of the serving processes and of the client."""

    seconds: float
    size_bytes: int
    cpu_seconds: tuple[float, ...]
    client_cpu_seconds: float

    @property
    def gigabytes_per_second(self) -> float:
        """10^9 bytes a second."""
        return self.size_bytes / self.seconds / 1e9

    @property
    def cpu_seconds_per_gib(self) -> tuple[float, ...]:
        """CPU of each server, and last of the client, for 2^30 bytes."""
        return tuple(cpu / (self.size_bytes / GIB) for cpu in (*self.cpu_seconds, self.client_cpu_seconds))


def download(host: str, port: int, path: str, pids: list[int]) -> Download:
    """GET `path`, dropping the body in the kernel; `pids` are the servers that have a part in it."""
    before, client, start = [cpu_seconds([pid]) for pid in pids], time.process_time(), time.perf_counter()
    with socket.create_connection((host, port)) as connection:
        size = _request(connection, host, path)
        left = size
        while left:
            count = connection.recv_into(_SCRATCH, min(left, _CHUNK_BYTES), socket.MSG_TRUNC)
            if not count:
                raise ConnectionError(f"{path}: {left} bytes missing")
            left -= count
    seconds, client = time.perf_counter() - start, time.process_time() - client
    used = tuple(cpu_seconds([pid]) - earlier for pid, earlier in zip(pids, before, strict=True))
    return Download(seconds, size, used, client)


_SCRATCH = bytearray(_CHUNK_BYTES)


def _request(connection: socket.socket, host: str, path: str) -> int:
    """Send a GET, take the head off the connection; the Content-Length."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head = connection.recv(65536, socket.MSG_PEEK)
        if not head:
            raise ConnectionError(f"{path}: closed without an answer")
    end = head.index(b"\r\n\r\n") + 4
    head = connection.recv(end)
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"{path}: {head.splitlines()[0]!r}")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError(f"{path}: no Content-Length")


def latencies_ms(host: str, port: int, path: str, count: int, warmup: int = 20) -> list[float]:
    """Milliseconds of `count` GETs, one after the other on one connection, sorted."""
    found = []
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count + warmup):
            start = time.perf_counter()
            left = _request(connection, host, path)
            while left:
                left -= len(connection.recv(min(left, _CHUNK_BYTES)))
            if number >= warmup:
                found.append((time.perf_counter() - start) * 1e3)
    return sorted(found)


def first_bytes_ms(host: str, port: int, paths: Sequence[str], *, keep: bool) -> list[float]:
    """Milliseconds from each request to the first byte of its body, sorted.

    With `keep` all go over one connection, and each body is read to its end. Without it each has a new connection,
    which is closed after the first byte.
    """
    found = []
    connection = _connected(host, port)
    try:
        for path in paths:
            start = time.perf_counter()
            left = _request(connection, host, path)
            left -= len(connection.recv(1))
            found.append((time.perf_counter() - start) * 1e3)
            if keep:
                while left:
                    left -= connection.recv_into(_SCRATCH, min(left, _CHUNK_BYTES), socket.MSG_TRUNC)
            else:
                connection.close()
                connection = _connected(host, port)
            time.sleep(PAUSE_SECONDS)  # what the request before left to do is not to be measured
    finally:
        connection.close()
    return sorted(found)


def _connected(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of the sorted `values` lie."""
    return values[min(int(len(values) * percent / 100), len(values) - 1)]
