"""The metrics of the content store."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class StoreSeries:
    """Take it with `metrics.of(StoreSeries)`."""

    def __init__(self, metrics: Metrics) -> None:
        self.available = metrics.gauge("speil_store_available", "1 if the content store answers, else 0.")
        self.events = metrics.counter("speil_store_events", "Events from the content store, by kind.", "kind")
        self.looks = metrics.counter(
            "speil_store_looks",
            "Full scans of the content store, by reason (resync, timer, removed, failed, overflow).",
            "reason",
        )
