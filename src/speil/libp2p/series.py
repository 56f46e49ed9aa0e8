"""The metrics of libp2p."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class Libp2pSeries:
    """Connections, and what was refused on them."""

    def __init__(self, metrics: Metrics) -> None:
        self.peers = metrics.gauge("speil_peers", "Peers with an open connection.")
        self.rejected_connections = metrics.counter(
            "speil_rejected_connections", "Connections and streams closed for what the peer did, by reason.", "reason"
        )
        self.dials_refused = metrics.counter(
            "speil_dials_refused",
            "Addresses named by peers that this node does not dial, by reason (port, link_local, loopback, multicast, "
            "unspecified, reserved, name, not_tcp, api_server, rate, teller).",
            "reason",
        )

    def rejected(self, reason: str) -> None:
        """Count one connection or stream; `reason` is the label."""
        self.rejected_connections.labels(reason).inc()
