"""A crowd of clients that all ask at the same instant: a process of its own, so that it slows down nobody it measures.

`python -m speil.testing.crowd HOST PORT PATH COUNT` prints one JSON object, the fields of `Crowd`. The clients drop the
bodies in the kernel (MSG_TRUNC): a crowd costs as little as it can.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

SECONDS_MAX = 120.0
_CHUNK_BYTES = 1 << 20
_SCRATCH = bytearray(_CHUNK_BYTES)


@dataclass(slots=True)
class Crowd:
    """What became of the requests; `failed` by reason."""

    served: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)


class _Client:
    def __init__(self, host: str, port: int, path: str) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setblocking(False)
        self.socket.connect_ex((host, port))
        self._request = f"GET {path} HTTP/1.1\r\nHost: crowd\r\nUser-Agent: crowd\r\n\r\n".encode()
        self._head = b""
        self._left: int | None = None

    def send(self) -> None:
        """The connection stands, or could not be made. Raises OSError."""
        self.socket.sendall(self._request)  # a small request fits into an empty buffer

    def receive(self) -> int:
        """Body bytes taken. Raises OSError."""
        if self._left is None:
            return self._read_head()
        count = self.socket.recv_into(_SCRATCH, min(self._left, _CHUNK_BYTES), socket.MSG_TRUNC)
        if not count:
            raise OSError(f"{self._left} bytes missing")
        self._left -= count
        return count

    @property
    def ended(self) -> bool:
        return self._left == 0

    def _read_head(self) -> int:
        data = self.socket.recv(65536)
        if not data:
            raise OSError("closed without an answer")
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        lines = head.decode().split("\r\n")
        if lines[0].split(" ")[1] != "200":
            raise OSError(lines[0])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        self._left = int(headers["content-length"]) - len(body)
        return len(body)


def run(host: str, port: int, path: str, count: int) -> Crowd:
    """Ask `count` times at once."""
    crowd, failed, started = Crowd(), Counter[str](), time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = _Client(host, port, path)
            selector.register(client.socket, selectors.EVENT_WRITE, client)
        while selector.get_map() and time.monotonic() - started < SECONDS_MAX:
            for key, events in selector.select(1.0):
                client = key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        client.send()
                        selector.modify(client.socket, selectors.EVENT_READ, client)
                    else:
                        crowd.size_bytes += client.receive()
                except BlockingIOError:
                    continue
                except OSError as error:
                    failed[str(error)] += 1
                else:
                    if not client.ended:
                        continue
                    crowd.served += 1
                selector.unregister(client.socket)
                client.socket.close()
        for key in list(selector.get_map().values()):
            failed["not ended in time"] += 1
            key.data.socket.close()
    crowd.seconds, crowd.failed = time.monotonic() - started, dict(failed)
    return crowd


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(run(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))))
