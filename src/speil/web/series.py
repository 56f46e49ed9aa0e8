"""The metrics of the pages. They exist from the first request for a page on."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class WebSeries:
    """Open pages, traces, and what was refused."""

    def __init__(self, metrics: Metrics) -> None:
        self.streams = metrics.gauge("speil_web_streams", "Pages that follow this node's state now.")
        self.traces = metrics.counter(
            "speil_web_traces", "Traces of images, by whether they measured (true, false).", "measured"
        )
        self.refused = metrics.counter(
            "speil_web_refused",
            "Requests for pages that were refused, by reason (host: an unknown name, origin: another page sent it, "
            "streams: too many pages are open, traces: too many traces).",
            "reason",
        )
