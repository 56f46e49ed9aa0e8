"""The metrics of the region's border."""

from __future__ import annotations

from speil.observe.metrics import Metrics, values
from speil.region.policy import Layer


class BorderSeries:
    """Who was kept out, by the layer that did it."""

    def __init__(self, metrics: Metrics) -> None:
        self._cross_region_rejected = metrics.counter(
            "speil_cross_region_rejected",
            "Attempts of nodes of other regions, or of none, that were kept out, by the layer that did.",
            "layer",
        )
        for layer in Layer:
            self._cross_region_rejected.labels(layer.value)  # exported as 0 from the start

    def rejected(self, layer: Layer) -> None:
        """Count one attempt."""
        self._cross_region_rejected.labels(layer.value).inc()

    def counts(self) -> dict[str, int]:
        """How many attempts each layer has rejected since the start."""
        return {labels["layer"]: int(value) for labels, value in values(self._cross_region_rejected)}
