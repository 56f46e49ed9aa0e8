"""A page of metrics that no node made: what two regions on one machine can't show.

It has every series that nodes declare, counting on with each scrape, and the kubelet's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.metrics import Counter, Gauge, Histogram

from speil.observe.metrics import Metrics
from speil.testing.declared_series import declare_all

REGION = ZONE = NODE = VALUE = "made-up"
OF_LABEL = {"handler": "/v2/*"}  # labels that queries select by value
# names and labels as in pkg/kubelet/metrics of Kubernetes 1.36; the label node is the scrape configuration's
_KUBELET = """\
kubelet_runtime_operations_total{{operation_type="pull_image",node="made-up"}} {count}
kubelet_runtime_operations_errors_total{{operation_type="pull_image",node="made-up"}} {count}
kubelet_image_pull_duration_seconds_bucket{{image_size_in_bytes="0-10MB",le="1",node="made-up"}} {count}
kubelet_image_pull_duration_seconds_bucket{{image_size_in_bytes="0-10MB",le="+Inf",node="made-up"}} {count}
"""


class _Page:
    """The page; each call counts all counters on by one."""

    def __init__(self) -> None:
        self._metrics = Metrics("1", region=REGION, zone=ZONE)
        declare_all(self._metrics)
        self._count = 0
        self._lock = threading.Lock()

    def read(self) -> bytes:
        with self._lock:
            self._count += 1
            for series in list(self._metrics.registry._collector_to_names):
                if isinstance(series, Counter | Gauge | Histogram):
                    one = (
                        series.labels(*(OF_LABEL.get(label, VALUE) for label in series._labelnames))
                        if series._labelnames
                        else series
                    )
                    if isinstance(one, Histogram):
                        one.observe(0.5)
                    else:
                        one.inc()
            return self._metrics.exposition() + _KUBELET.format(count=self._count).encode()


@contextmanager
def served() -> Iterator[str]:
    """Serve the page on loopback; yields `host:port`."""
    page = _Page()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.read()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
