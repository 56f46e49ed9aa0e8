"""The cluster's DNS, for what speil asks of it: addresses of the pods of a headless Service (RFC 1035, UDP).

It runs in a thread of the test, so that tests without it show that nothing needs it.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.layout import CONTROL

DOMAIN = ("svc", "cluster", "local")
PORT = 53
QUERY_BYTES_MAX = 512
TTL_SECONDS = 5
TYPE_A = 1
NO_SUCH_NAME = 3


@contextmanager
def cluster_dns(cluster: Cluster) -> Iterator[list[str]]:
    """For as long as this lasts, the DNS address that pods have answers. Yields the names that were asked for."""
    asked: list[str] = []
    with cluster.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((CONTROL, PORT))
        done = threading.Event()
        thread = threading.Thread(target=_serve, args=(cluster, server, done, asked))
        thread.start()
        try:
            yield asked
        finally:
            done.set()
            thread.join()


def _serve(cluster: Cluster, server: socket.socket, done: threading.Event, asked: list[str]) -> None:
    with cluster.inside():
        while not done.is_set():
            if not select.select([server], [], [], 0.1)[0]:
                continue
            query, sender = server.recvfrom(QUERY_BYTES_MAX)
            try:
                labels, kind, end = _question(query)
                found = _addresses(cluster, labels)
            except (AssertionError, OSError, IndexError, struct.error):
                continue  # the client asks again
            asked.append(".".join(labels))
            records = [] if found is None or kind != TYPE_A else found
            flags = 0x8580 | (NO_SUCH_NAME if found is None else 0)  # an authoritative response
            head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
            record = struct.pack(">HHHIH", 0xC00C, TYPE_A, 1, TTL_SECONDS, 4)
            body = b"".join(record + socket.inet_aton(address) for address in records)
            server.sendto(head + query[12:end] + body, sender)


def _question(query: bytes) -> tuple[list[str], int, int]:
    """Labels and type of the first question, and where it ends."""
    labels, at = [], 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("ascii").lower())
        at += 1 + size
    (kind,) = struct.unpack_from(">H", query, at + 1)
    return labels, kind, at + 5


def _addresses(cluster: Cluster, labels: list[str]) -> list[str] | None:
    """The ready addresses of SERVICE.NAMESPACE.svc.cluster.local; None where there is no such Service."""
    client = cluster.control.client()
    if len(labels) != 5 or tuple(labels[2:]) != DOMAIN or client.find("services", labels[1], labels[0]) is None:
        return None
    slices = client.list("endpointslices", labels[1], labelSelector=f"kubernetes.io/service-name={labels[0]}")
    return sorted(address for one in slices for point in one["endpoints"] or () for address in _ready(point))


def _ready(point: dict[str, Any]) -> list[str]:
    return list(point["addresses"]) if point.get("conditions", {}).get("ready") else []
