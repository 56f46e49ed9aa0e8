"""Metrics: each series is declared here, once, with its labels and its meaning.

Names and labels are Spegel's (v0.7.4) where Spegel has the series, so that its dashboards go on working, and
`speil_…` for what is new. Each `Metrics` has a registry of its own: several nodes can live in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from speil.region.policy import Layer

__all__ = ["CONTENT_TYPE", "DURATION_BUCKETS", "Gauge", "Metrics", "Series"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# client_golang's default buckets, which Spegel uses: alerts and recording rules name them by `le`
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which Spegel has not and nobody asks for


class _LabelledRegistry(CollectorRegistry):
    """A registry that puts the same labels on every series it gives out."""

    def __init__(self, labels: dict[str, str]) -> None:
        super().__init__(auto_describe=True)
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample._replace(labels=self._labelled(sample.labels)) for sample in family.samples]
            yield family

    def _labelled(self, labels: dict[str, str]) -> dict[str, str]:
        if "le" in labels:
            # Go writes le="1" in the text format, Python 1.0: to older Prometheus servers these are two series
            labels = {**labels, "le": labels["le"].removesuffix(".0")}
        return {**labels, **self._labels}


class _EraGauges(Collector):
    """Two gauges of Spegel up to 0.0.30, whose dashboard shows them, from the ones of today."""

    def __init__(self, tags: Gauge, images: Gauge, content: Gauge) -> None:
        self._tags, self._images, self._content = tags, images, content

    def collect(self) -> Iterator[Metric]:
        images = GaugeMetricFamily("spegel_advertised_images", "Images announced to peers.", labels=("registry",))
        keys = GaugeMetricFamily("spegel_advertised_keys", "Keys announced to peers.", labels=("registry",))
        for registry, count in _by_registry(self._images).items():
            images.add_metric((registry,), count)
        content = _by_registry(self._content)
        for registry, count in _by_registry(self._tags).items():
            content[registry] = content.get(registry, 0) + count
        for registry, count in content.items():
            keys.add_metric((registry,), count)
        yield images
        yield keys


def _by_registry(gauge: Gauge) -> dict[str, float]:
    return {sample.labels["registry"]: sample.value for family in gauge.collect() for sample in family.samples}


class Series(Protocol):
    """The series of one package: a class that declares them in its constructor, beside the code that counts."""

    def __init__(self, metrics: Metrics) -> None: ...


S = TypeVar("S", bound=Series)


class Metrics:
    """The series of one node. A package declares its own (`Series`) and takes them with `of`."""

    def __init__(self, version: str = "", *, region: str = "", zone: str = "") -> None:
        """`region` and `zone` stand on every series."""
        registry = self.registry = _LabelledRegistry({"region": region, "zone": zone})
        self._series: dict[type[Any], Series] = {}
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        # --- Spegel's names ---------------------------------------------------------------------------------
        self.resolve_duration = Histogram(
            "spegel_resolve_duration_seconds", "Time to the first provider of a key.", ("router",),
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.advertised_image_tags = Gauge(
            "spegel_advertised_image_tags", "Image tags announced to peers.", ("registry",), registry=registry
        )
        self.advertised_image_digests = Gauge(
            "spegel_advertised_image_digests",
            "Image digests announced to peers.",
            ("registry",),
            registry=registry,
        )
        self.advertised_content_digests = Gauge(
            "spegel_advertised_content_digests",
            "Content digests announced to peers.",
            ("registry",),
            registry=registry,
        )
        registry.register(
            _EraGauges(self.advertised_image_tags, self.advertised_image_digests, self.advertised_content_digests)
        )
        # --- the mesh ---------------------------------------------------------------------------------------
        self.peers = Gauge("speil_peers", "Peers with an open connection.", registry=registry)
        self.routing_table_size = Gauge(
            "speil_routing_table_size", "Peers in the DHT routing table.", registry=registry
        )
        self.lookups = Counter(
            "speil_lookups", "Provider lookups, by outcome (found, empty, timeout, error).", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.provider_records = Gauge(
            "speil_provider_records", "Provider records held for the mesh.", registry=registry
        )
        self.provided_keys = Gauge("speil_provided_keys", "Keys this node announces.", registry=registry)
        self.announced_keys = Counter(
            "speil_announced_keys",
            "Keys whose turn to be announced came, by outcome (announced, skipped, failed, alone).",
            ("outcome",), registry=registry,
        )  # fmt: skip
        self.announcement_keys = Histogram(
            "speil_announcement_keys", "Keys told to a peer at once.", buckets=(1, 4, 16, 64, 256, 1024),
            registry=registry,
        )  # fmt: skip
        self.dht_messages = Counter(
            "speil_dht_messages", "DHT messages, by direction (in, out) and type.", ("direction", "type"),
            registry=registry,
        )  # fmt: skip
        self.dht_refused = Counter(
            "speil_dht_refused",
            "Streams reset and records turned away for what a peer asked beyond a share, by whose share it was "
            "(peer, address, subnet, node; records: of what is kept for others).",
            ("reason",), registry=registry,
        )  # fmt: skip
        self.dht_slowed_seconds = Counter(
            "speil_dht_slowed_seconds", "Time that peers' DHT messages waited for their budget.", registry=registry
        )
        self.rejected_connections = Counter(
            "speil_rejected_connections", "Connections and streams closed for what the peer did, by reason.",
            ("reason",), registry=registry,
        )  # fmt: skip
        self.dials_refused = Counter(
            "speil_dials_refused",
            "Addresses told by peers that this node does not dial, by reason (port, link_local, loopback, multicast, "
            "unspecified, reserved, name, not_tcp, api_server, rate, teller).",
            ("reason",), registry=registry,
        )  # fmt: skip
        self.bootstrap_attempts = Counter(
            "speil_bootstrap_attempts", "Attempts to find first peers, by kind and outcome (ok, empty, error).",
            ("kind", "outcome"), registry=registry,
        )  # fmt: skip

        # --- the election of the region's leader ------------------------------------------------------------
        self.election_state = Gauge(
            "speil_election_state", "1 for what this node is in the election: candidate, follower or leader.",
            ("state",), registry=registry,
        )  # fmt: skip
        self.election_transitions = Gauge(
            "speil_election_transitions", "How often the Lease went from one holder to another.", registry=registry
        )
        self.election_renewal_age = Gauge(
            "speil_election_renewal_age_seconds",
            "Time since the last renewal of the Lease that this node knows of; in a large region it looks rarely.",
            registry=registry,
        )
        self.election_requests = Counter(
            "speil_election_requests",
            "Requests for the Lease, by verb (get, put) and outcome (ok, conflict, denied, error).",
            ("verb", "outcome"), registry=registry,
        )  # fmt: skip
        self.election_events = Counter(
            "speil_election_events", "What happened in the election (acquired, renewed, lost, new_leader, …).",
            ("event",), registry=registry,
        )  # fmt: skip

        self.cross_region_rejected = Counter(
            "speil_cross_region_rejected",
            "Attempts of other regions, or of nobody's nodes, that were kept out, by the layer that did.",
            ("layer",), registry=registry,
        )  # fmt: skip
        for layer in Layer:
            self.cross_region_rejected.labels(layer.value)  # a zero is news too: the layer is there

        # --- the content store ------------------------------------------------------------------------------
        self.store_available = Gauge("speil_store_available", "Whether the content store answers.", registry=registry)
        self.store_events = Counter("speil_store_events", "News from the content store.", ("kind",), registry=registry)
        self.store_looks = Counter(
            "speil_store_looks",
            "Looks at everything in the store, by reason (resync, timer, removed, failed, overflow).",
            ("reason",), registry=registry,
        )  # fmt: skip
        self.withheld_tags = Gauge(
            "speil_withheld_tags",
            "Tags that are not announced, because no platform's image is whole in the store.",
            registry=registry,
        )
        Info("speil_build", "The running version.", registry=registry).info({"version": version})

    def of(self, series: type[S]) -> S:
        """The series of this class: declared at the first call, the same object at each call after it."""
        if series not in self._series:
            self._series[series] = series(self)
        return cast(S, self._series[series])

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Declare a counter; its samples are named `<name>_total`."""
        return Counter(name, meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """Declare a gauge."""
        return Gauge(name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float] = DURATION_BUCKETS
    ) -> Histogram:
        """Declare a histogram; `buckets` are upper bounds, in seconds unless the name says otherwise."""
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def exposition(self) -> bytes:
        """All series in the Prometheus text format."""
        return generate_latest(self.registry)
