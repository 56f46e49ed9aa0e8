"""The series of the election."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class LeaseSeries:
    """See `Metrics.of`."""

    def __init__(self, metrics: Metrics) -> None:
        self.state = metrics.gauge(
            "speil_election_state", "1 for what this node is in the election: candidate, follower or leader.", "state"
        )
        self.transitions = metrics.gauge(
            "speil_election_transitions", "How often the Lease went from one holder to another."
        )
        self.renewal_age = metrics.gauge(
            "speil_election_renewal_age_seconds",
            "Time since the last renewal of the Lease that this node has seen; in a large region it reads rarely.",
        )
        self.requests = metrics.counter(
            "speil_election_requests",
            "Requests for the Lease, by verb (get, put) and outcome (ok, conflict, denied, error).",
            "verb",
            "outcome",
        )
        self.events = metrics.counter(
            "speil_election_events", "What happened in the election (acquired, renewed, lost, new_leader, …).", "event"
        )
