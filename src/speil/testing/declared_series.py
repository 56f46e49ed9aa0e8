"""All series that the packages declare, without running a node."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import speil
from speil.observe.metrics import Metrics, Series


def declare_all(metrics: Metrics) -> None:
    """Take every class of `series_classes`, as a node's parts do."""
    for _, kind in series_classes():
        metrics.of(kind)


def series_classes() -> Iterator[tuple[str, type[Series]]]:
    """Every `…Series` class of every module `speil.<package>.series`, with the name of its package."""
    for found in pkgutil.walk_packages(speil.__path__, "speil."):
        if not found.name.endswith(".series"):
            continue
        module = importlib.import_module(found.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if name.endswith("Series") and kind.__module__ == found.name:
                yield found.name.split(".")[1], kind
