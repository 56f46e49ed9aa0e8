"""The metrics of routing: the DHT, the bootstrap, what is announced."""

from __future__ import annotations

from speil.observe.metrics import Metrics


class DhtSeries:
    """The DHT, as this node asks it, announces to it and answers for it."""

    def __init__(self, metrics: Metrics) -> None:
        self.resolve_duration = metrics.histogram(
            "spegel_resolve_duration_seconds", "Time to the first provider of a key.", "router"
        )
        self.routing_table_size = metrics.gauge("speil_routing_table_size", "Peers in the DHT routing table.")
        self.lookups = metrics.counter(
            "speil_lookups", "Provider lookups, by outcome (found, empty, timeout, error).", "outcome"
        )
        self.provider_records = metrics.gauge("speil_provider_records", "Provider records held for the mesh.")
        self.provided_keys = metrics.gauge("speil_provided_keys", "Keys this node announces.")
        self.announced_keys = metrics.counter(
            "speil_announced_keys",
            "Keys whose turn to be announced came, by outcome (announced, skipped, failed, alone).",
            "outcome",
        )
        self.announcement_keys = metrics.histogram(
            "speil_announcement_keys", "Keys announced to a peer at once.", buckets=(1, 4, 16, 64, 256, 1024)
        )
        self.announcement_delay = metrics.histogram(
            "speil_announcement_delay_seconds",
            "Time from when a key was due to when peers had its record, of the oldest key of each batch.",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self.messages = metrics.counter(
            "speil_dht_messages", "DHT messages, by direction (in, out) and type.", "direction", "type"
        )
        self.refused = metrics.counter(
            "speil_dht_refused",
            "Streams reset and records refused because a peer exceeded a share, by whose share it was (peer, address, "
            "subnet, node; records: of what is stored for others).",
            "reason",
        )
        self.slowed_seconds = metrics.counter(
            "speil_dht_slowed_seconds", "Time that DHT messages of peers waited for their budget."
        )


class ClaimSeries:
    """This node as the umpire of keys: it decides who fetches content from the upstream, and who follows whom."""

    def __init__(self, metrics: Metrics) -> None:
        self.answers = metrics.counter(
            "speil_claims_answers",
            "Answers of this node to nodes that miss content, by kind (fetch, follow, holders, defer, alone).",
            "answer",
        )
        self.held = metrics.gauge(
            "speil_claims_held", "Keys whose claims this node keeps: who fetches, and who follows."
        )
        self.refused = metrics.counter(
            "speil_claims_refused",
            "Claim messages of peers that were not followed, and messages of this node that were not sent, by reason "
            "(limit: nodes in claims, or the asker failed others; spoiled: the content failed verification; "
            "invalid; not_near: the sender is not near the key; foreign: it names peers that are not dialled; "
            "rate: of messages to other umpires).",
            "reason",
        )


class BootstrapSeries:
    """Attempts to find first peers."""

    def __init__(self, metrics: Metrics) -> None:
        self.attempts = metrics.counter(
            "speil_bootstrap_attempts",
            "Attempts to find first peers, by kind and outcome (ok, empty, error).",
            "kind",
            "outcome",
        )


class AnnounceSeries:
    """What this node announces, by registry. Two of the names are from Spegel before 0.0.31, for its dashboard."""

    def __init__(self, metrics: Metrics) -> None:
        self.image_tags = metrics.gauge("spegel_advertised_image_tags", "Image tags announced to peers.", "registry")
        self.image_digests = metrics.gauge(
            "spegel_advertised_image_digests", "Image digests announced to peers.", "registry"
        )
        self.content_digests = metrics.gauge(
            "spegel_advertised_content_digests", "Content digests announced to peers.", "registry"
        )
        metrics.sum_gauge(
            "spegel_advertised_images", "Images announced to peers (Spegel up to 0.0.30).", self.image_digests
        )
        metrics.sum_gauge(
            "spegel_advertised_keys",
            "Keys announced to peers (Spegel up to 0.0.30).",
            self.content_digests,
            self.image_tags,
        )
        self.withheld_tags = metrics.gauge(
            "speil_withheld_tags",
            "Tags that are not announced, because no platform's image is whole in the store.",
        )
