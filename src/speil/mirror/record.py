"""The one record of a request. When the request has ended it feeds the metrics, the debug page and the log line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from speil.http1.places import Place
from speil.inflight.series import InflightSeries
from speil.mirror.asked import Asked
from speil.mirror.peer_bytes import PeerBytes
from speil.mirror.recent import RecentRequests
from speil.mirror.series import MirrorSeries
from speil.mirror.upstream_bytes import UpstreamBytes
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.oci import byte_range
from speil.sources.base import Notes, Origin

CLIENT_GONE = 499  # nginx's status for it
REGISTRY_LABELS_MAX = 100  # distinct `registry` labels: strangers choose `ns`

log = get_log("mirror")


@dataclass(slots=True)
class Record:
    """What was asked, and what came of it. `asked` is set for content that was admitted; only that is logged."""

    handler: str
    method: str
    place: Place
    started: float  # loop time
    asked: Asked | None = None
    notes: Notes = field(default_factory=Notes)  # the sources' part: attempts, peer
    source: Origin | None = None
    outcome: str = "not found"
    is_complete: bool = False  # the answer was content, and was sent to its end
    is_gone: bool = False  # the client hung up
    status: int = CLIENT_GONE
    length: int | None = None  # the Content-Length, once an answer is decided
    sent: int = 0  # body bytes

    def gone(self) -> None:
        """The client hung up."""
        self.outcome, self.status, self.length, self.is_gone = "client gone", CLIENT_GONE, 0, True

    @property
    def is_hit(self) -> bool:
        """Whether a peer served it.

        A client that hung up has what it wanted (a multipart fetch hangs up after each part), or its pull was
        cancelled: that is no miss.
        """
        return self.source is Origin.PEER and (self.is_complete or self.is_gone)


class Recorder:
    """Makes records, and uses each of them once, at the request's end."""

    def __init__(
        self,
        series: MirrorSeries,
        recent: RecentRequests,
        upstream_bytes: UpstreamBytes,
        lines: LineLimit,
        inflight: InflightSeries,
    ) -> None:
        """`lines` limits the lines about requests of others than this node."""
        self._inflight = inflight
        self._series, self._recent, self._upstream_bytes, self._lines = series, recent, upstream_bytes, lines
        self._registries: set[str] = set()
        self.open_records: dict[int, Record] = {}  # of the requests that are being answered, in their order
        self._last_number = 0
        self.peer_bytes = PeerBytes()

    @contextmanager
    def record(self, handler: str, method: str, place: Place) -> Iterator[Record]:
        """The record of one request while it is answered."""
        now = asyncio.get_running_loop().time
        inflight = self._series.http_requests_inflight.labels(handler)
        record = Record(handler, method, place, now())
        inflight.inc()
        self._last_number += 1
        number = self._last_number
        self.open_records[number] = record
        try:
            yield record
        except BaseException as error:
            record.outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
            record.status, record.length = CLIENT_GONE, None
            raise
        finally:
            inflight.dec()
            del self.open_records[number]
            self._end(record, now() - record.started)

    def sent(self, record: Record, size: int) -> None:
        """Body bytes were sent; the counter moves while the body does."""
        record.sent += size
        if (asked := record.asked) and record.source:
            labels = (self._label(asked), record.source, asked.client)
            self._series.served_bytes.labels(*labels).inc(size)
            if record.source is Origin.PEER and not asked.from_peer and record.notes.peer is not None:
                self.peer_bytes.add(record.notes.peer, size, asyncio.get_running_loop().time())
            if record.source is Origin.INGEST:
                self._inflight.shared_bytes.labels("source").inc(size)

    def _end(self, record: Record, seconds: float) -> None:
        method = record.method if record.method in ("GET", "HEAD") else "other"
        labels = (record.handler, method, str(record.status))
        self._series.http_request_duration.labels(*labels).observe(seconds)
        if record.length is not None:
            self._series.http_response_size.labels(*labels).observe(record.length)
        if record.asked is None:
            return
        if record.notes.asked_peers and not record.notes.comes_again:
            self._count_mirrored(record, record.asked)
        source = record.source or "none"
        content = record.asked.content
        self._recent.add(
            record.method, content.key, source, record.outcome, record.asked.client, image=content.image,
            size=record.sent, seconds=seconds, peer=str(record.notes.peer or ""),
        )  # fmt: skip
        self._log(record, record.asked, source, seconds)

    def _count_mirrored(self, record: Record, asked: Asked) -> None:
        label, digest = self._label(asked), asked.content.digest
        self._series.mirror_requests.labels(label, "hit" if record.is_hit else "miss").inc()
        if record.is_hit and record.is_complete:
            self._series.mirror_last_success.set_to_current_time()
        if record.method != "GET" or digest is None:
            return
        if record.is_hit:
            self._upstream_bytes.served(digest)
        else:  # the node takes the rest from upstream: from where it, or this answer, ended
            offset = byte_range.first_byte(asked.range_header) + record.sent
            self._upstream_bytes.missed(digest, label, offset, asked.content.image)

    def _log(self, record: Record, asked: Asked, source: str, seconds: float) -> None:
        write, left_out = log.debug, 0
        if record.method == "GET":
            # requests of others are logged now and then: their number is not ours to choose
            is_own = record.place.is_own and not asked.from_peer
            due = 0 if is_own else self._lines.due(record.place.share)
            write, left_out = (log.debug, 0) if due is None else (log.info, due)
        write(
            "asked by a peer" if asked.from_peer else "asked by the node",
            method=record.method,
            image=asked.content.image,
            reference=str(asked.content.reference),
            status=record.status,
            source=source,
            outcome=record.outcome,
            peer=str(record.notes.peer) if record.notes.peer else None,
            attempts=record.notes.attempts or None,
            bytes=record.sent or None,
            duration_ms=round(seconds * 1e3, 1),
            left_out=left_out or None,
        )

    def _label(self, asked: Asked) -> str:
        registry = asked.content.registry or ""
        if registry in self._registries or len(self._registries) < REGISTRY_LABELS_MAX:
            self._registries.add(registry)
            return registry
        return "other"
