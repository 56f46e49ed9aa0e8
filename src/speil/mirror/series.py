"""The series of the registry port and the metrics port. Names, labels and buckets are Spegel's where it has them."""

from __future__ import annotations

from speil.observe.metrics import Metrics

_RESPONSE_SIZE_BUCKETS = tuple(1024.0 * 5**exponent for exponent in range(10))


class MirrorSeries:
    """Requests, what was served, and what was refused."""

    def __init__(self, metrics: Metrics) -> None:
        http = ("handler", "method", "code")
        self.mirror_requests = metrics.counter(
            "spegel_mirror_requests", "Requests that were mirrored from peers, by outcome (hit or miss).",
            "registry", "cache",
        )  # fmt: skip
        self.mirror_last_success = metrics.gauge(
            "spegel_mirror_last_success_timestamp_seconds", "When content last came from a peer."
        )
        self.http_request_duration = metrics.histogram(
            "http_request_duration_seconds", "Time from a request's head to the end of its answer.", *http
        )
        self.http_response_size = metrics.histogram(
            "http_response_size_bytes", "Bytes of body in an answer.", *http, buckets=_RESPONSE_SIZE_BUCKETS
        )
        self.http_requests_inflight = metrics.gauge("http_requests_inflight", "Requests being answered.", "handler")
        self.served_bytes = metrics.counter(
            "speil_served_bytes", "Body bytes sent, by where they came from (store, peer) and who asked (node, peer).",
            "registry", "source", "client",
        )  # fmt: skip
        self.upstream_bytes = metrics.counter(
            "speil_upstream_bytes",
            "Bytes of content that no peer had when this node asked, and that came into its store then.",
            "registry",
        )
        self.open_uploads = metrics.gauge("speil_open_uploads", "Bodies being sent to peers.")
        self.refused_uploads = metrics.counter(
            "speil_refused_uploads",
            "Peers sent elsewhere, by reason (node, bandwidth, peer, share, requests).",
            "reason",
        )
        self.http_connections_refused = metrics.counter(
            "speil_http_connections_refused",
            "Connections refused or closed at a port (registry, metrics), by reason (too_many_from_address, too_fast, "
            "too_many, made_way, no_head, no_descriptor).",
            "port", "reason",
        )  # fmt: skip
        self.http_malformed_requests = metrics.counter(
            "speil_http_malformed_requests", "Requests at a port that were no HTTP.", "port"
        )
        self.http_requests_refused = metrics.counter(
            "speil_http_requests_refused",
            "Clients other than peers that were sent upstream, by reason (node, address, share).",
            "reason",
        )
        self.http_slow_bodies = metrics.counter(
            "speil_http_slow_bodies", "Bodies ended since their client took too little."
        )
        self.throttled_seconds = metrics.counter(
            "speil_upload_throttled_seconds", "Time that uploads waited for --upload-limit."
        )
