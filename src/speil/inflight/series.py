"""The series of sharing in flight."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class InflightSeries:
    """What became of this node's pulls, and what it shared while it was downloaded."""

    def __init__(self, metrics: Metrics) -> None:
        self.shared_bytes = metrics.counter(
            "speil_shared_bytes",
            "Body bytes of content that was shared while it was downloaded, by this node's role: it sent them (source) "
            "or got them (follower).",
            "role",
        )
        self.shared_pulls = metrics.counter(
            "speil_shared_pulls",
            "Content that no peer had complete when this node asked, by outcome: fetched from upstream for the region "
            "(fetched), followed to its end (followed), complete at a peer meanwhile (holders), fetched without a "
            "claim (alone; why: spoiled, limit, waited, not_ready), given up by the container runtime (cancelled), "
            "wrong bytes (spoiled), a bug (failed).",
            "outcome", "why",
        )  # fmt: skip
        self.left_sources = metrics.counter(
            "speil_left_sources",
            "Sources left before the end, by reason (silent, no_byte, gone, full, slow, crawling, loop).",
            "reason",
        )
        self.stepped_aside = metrics.counter(
            "speil_stepped_aside",
            "Requests of containerd that were ended before their first byte, and came again, so that those behind them "
            "in its line got a slot.",
        )
        self.pulls_in_flight = metrics.gauge(
            "speil_pulls_in_flight", "Content that this node downloads, from upstream or as a follower."
        )
        self.open_followers = metrics.gauge("speil_open_followers", "Bodies being sent to followers.")
        self.refused_followers = metrics.counter(
            "speil_refused_followers", "Followers sent elsewhere: this node feeds as many as it may."
        )
