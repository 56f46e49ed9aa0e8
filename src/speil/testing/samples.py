"""What a node's metrics say now."""

from __future__ import annotations

from speil.observe.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of a series over the label sets that have `labels`; 0 while there is none."""
    return sum(
        one.value
        for family in metrics.registry.collect()
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )
