"""Write docs/metrics.md from the declared series (`make docs`); a test compares the two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.registry import Collector

from speil.observe.metrics import Metrics
from speil.testing.declared_series import series_classes

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
INTRO = """# Metrics
Written from the declarations by `make docs`. [Operations](operations.md#metrics) says what the values of the labels
mean and what to do. [The chart](../charts/speil/README.md) has rules for Prometheus and a dashboard for Grafana.

A node serves these series at `/metrics` of its metrics port (`--metrics-addr`, 9090), in the text format of Prometheus.
Every series has the labels `region` and `zone`, empty where there is none. A histogram has the series `_bucket` (with
the label `le`), `_sum` and `_count`. Series with labels exist from the first time that something is counted.
"""
# in the order of the page
OF_PACKAGE = {
    "mirror": "Requests and what was served",
    "sources": "Requests to peers",
    "inflight": "Sharing in flight",
    "routing": "The DHT, bootstrap, announcing and claims",
    "lease": "The election",
    "border": "The border of the region",
    "store": "The content store",
    "libp2p": "libp2p",
    "web": "The pages",
    "observe": "The process",
}


# what every sample of these has beside what they declare
_OF_EVERY_SERIES = {"region", "zone", "le"}


def page() -> str:
    """The whole page."""
    metrics = Metrics("1")
    registered = metrics.registry._collector_to_names
    rows = {"observe": _rows(registered)}
    for package, kind in series_classes():
        before = set(registered)
        metrics.of(kind)
        rows.setdefault(package, []).extend(_rows(one for one in registered if one not in before))
    parts = [INTRO]
    assert rows.keys() == OF_PACKAGE.keys(), "each package with series needs a heading in OF_PACKAGE"
    for package in OF_PACKAGE:
        parts.append(f"## {OF_PACKAGE[package]}\n")
        parts.append("| series | type | labels | meaning |\n|---|---|---|---|")
        parts += [*sorted(rows[package]), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(collectors: Iterable[Collector]) -> list[str]:
    """A line for each series."""
    rows = []
    for collector in collectors:
        for family in collector.collect():
            ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
            names = getattr(collector, "_labelnames", ()) or sorted(
                {label for sample in family.samples for label in sample.labels} - _OF_EVERY_SERIES
            )
            labels = ", ".join(f"`{name}`" for name in names) or "–"
            kind = "gauge" if family.type == "info" else family.type
            rows.append(f"| `{family.name}{ending}` | {kind} | {labels} | {family.documentation} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(page())
