"""All series that the packages declare, without running a node."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import speil
from speil.observe.metrics import Metrics


def declare_all(metrics: Metrics) -> None:
    """Take every `…Series` class of every module `speil.<package>.series`, as a node's parts do."""
    for found in pkgutil.walk_packages(speil.__path__, "speil."):
        if not found.name.endswith(".series"):
            continue
        module = importlib.import_module(found.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if name.endswith("Series") and kind.__module__ == found.name:
                metrics.of(kind)
