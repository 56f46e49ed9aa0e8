"""Metrics: the registry in which packages declare their series.

Where Spegel (v0.7.4) has a series, its name and labels are the same, so that Spegel's dashboards keep working. New
series are named `speil_…`. Each `Metrics` has a registry of its own: several nodes can run in one process.
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

__all__ = ["CONTENT_TYPE", "DURATION_BUCKETS", "Gauge", "Metrics", "Series", "values"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# client_golang's default buckets, which Spegel uses: alerts and recording rules name them by `le`
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which Spegel does not have


class _LabelledRegistry(CollectorRegistry):
    """A registry that adds the same labels to every series."""

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


class _SumGauge(Collector):
    """A gauge whose value for each label is the sum of other gauges'."""

    def __init__(self, name: str, meaning: str, gauges: Sequence[Gauge]) -> None:
        self._name, self._meaning, self._gauges = name, meaning, gauges
        self._labelnames = gauges[0]._labelnames

    def collect(self) -> Iterator[Metric]:
        sums: dict[tuple[str, ...], float] = {}
        for gauge in self._gauges:
            for family in gauge.collect():
                for sample in family.samples:
                    labels = tuple(sample.labels.values())
                    sums[labels] = sums.get(labels, 0) + sample.value
        found = GaugeMetricFamily(self._name, self._meaning, labels=self._labelnames)
        for labels, value in sums.items():
            found.add_metric(labels, value)
        yield found


class Series(Protocol):
    """The series of one package: a class that declares them in its constructor, beside the code that counts."""

    def __init__(self, metrics: Metrics) -> None: ...


S = TypeVar("S", bound=Series)


def values(series: Counter | Gauge) -> list[tuple[dict[str, str], float]]:
    """The labels and the value of each sample of a series now."""
    return [(sample.labels, sample.value) for family in series.collect() for sample in family.samples]


class Metrics:
    """The series of one node. A package declares its own (`Series`) and takes them with `of`."""

    def __init__(self, version: str = "", *, region: str = "", zone: str = "") -> None:
        """`region` and `zone` stand on every series."""
        registry = self.registry = _LabelledRegistry({"region": region, "zone": zone})
        self._series: dict[type[Any], Series] = {}
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

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

    def sum_gauge(self, name: str, meaning: str, *gauges: Gauge) -> None:
        """Declare a gauge that is the sum of `gauges`, which have the same labels."""
        self.registry.register(_SumGauge(name, meaning, gauges))

    def exposition(self) -> bytes:
        """All series in the Prometheus text format."""
        return generate_latest(self.registry)
