"""The series of requests to peers."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class SourcesSeries:
    """What peers answered and delivered, and what became of tags."""

    def __init__(self, metrics: Metrics) -> None:
        self.peer_requests = metrics.counter(
            "speil_peer_requests",
            "Requests sent to peers, by outcome (ok, not_found, busy, refused, timeout, broken, bad_answer, range, "
            "own_limit).",
            "outcome",
        )
        self.peer_bytes = metrics.counter(
            "speil_peer_bytes", "Body bytes from peers, by where they are: same zone, other zone, unknown.", "relation"
        )
        self.peer_bans = metrics.counter("speil_peer_bans", "Peers that were caught with wrong bytes.")
        self.missing_content = metrics.counter(
            "speil_missing_content",
            "Content that peers delivered whole and that the store did not take in within seconds.",
        )
        self.resumed_transfers = metrics.counter(
            "speil_resumed_transfers", "Bodies that went on from another peer after a break."
        )
        self.tag_answers = metrics.counter(
            "speil_tag_answers",
            "Tags the node asked for, by outcome: store, peer; or sent upstream: nobody holds it (none), holders "
            "disagree (disagreement) or its content can't be supplied (not_whole).",
            "outcome",
        )
