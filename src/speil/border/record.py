"""Rejections at the border: each is counted by its layer, and logged at most every ten minutes for each peer."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from speil.border.series import BorderSeries
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.region.identity import REGION_LABEL
from speil.region.policy import Layer

LABEL_CHARS_SHOWN = 80  # of a label that a peer sent, in a log line
AGAIN_SECONDS = 600.0  # between two lines about the same peer and layer
LOGGED_MAX = 256  # peers remembered as logged; strangers choose how many they are
KEPT_OUT_MAX = 50  # of these the pages show the last ones
WHO_CHARS_SHOWN = 200

_WHAT_TO_DO = {
    Layer.LEASE: "give each region its own --leader-election-name and --leader-election-namespace",
    Layer.NETWORK: "if it belongs to the region, add its network to --region-networks; if not, its region is set wrong",
    Layer.SECRET: "if it belongs to the region, give it the same --region-secret-file",
    Layer.IDENTIFY: "if it belongs to the region, correct its --region or Lease names; if not, find out who sent it: "
    "a bootstrap address or a Lease that two regions share",
    Layer.DHT_PROTOCOL: "use the same --dht-protocol-prefix on all nodes of the region, or leave it empty",
    Layer.HTTP: "if it belongs to the region, correct its --region; a provider record led to it",
    Layer.TOKEN: "if it belongs to the region, give it the same --region-secret-file, and look at its clock",
    Layer.ANSWER: "if it belongs to the region, give it this version of speil and the same --region-secret-file (or "
    "basic auth), and look at its clock; if not, its address belonged to a node earlier; other peers are used "
    "until then",
    Layer.NODE_TOKEN: "if it is containerd, run `speil configuration` on this node with the region's secret "
    "and --node-name; until then it pulls from upstream",
}
_LABELS_DIFFER = (
    "if they are two regions, give each its own --leader-election-name and --leader-election-namespace; if they are "
    "one, set --region {region} on all of its nodes, and the label is not compared"
)

log = get_log("border")


@dataclass(slots=True)
class KeptOut:
    """One node that was kept out by one layer, `count` times, the last time at `time` (Unix seconds)."""

    layer: str
    who: str
    why: str
    what_to_do: str
    count: int = 0
    time: float = 0.0


class BorderRecord:
    """Counts and logs rejections. One for each node. `kept_out` has the last ones, by layer and who."""

    def __init__(self, region: str, metrics: Metrics) -> None:
        self._region, self._series = region, metrics.of(BorderSeries)
        self._logged: dict[tuple[Layer, str], float] = {}
        self._lines = LineLimit()
        self.kept_out: OrderedDict[tuple[Layer, str], KeptOut] = OrderedDict()

    def other_label(self, layer: Layer, who: str, label: str, own: str) -> None:
        """Count a node of a region with the same name and another topology label. `who`: an address or peer id."""
        why = f"its node's label {REGION_LABEL} is {label[:LABEL_CHARS_SHOWN]}, this node's {own}"
        self.rejected(layer, who, why, _LABELS_DIFFER.format(region=self._region or "<name>"))

    def rejected(self, layer: Layer, who: str, why: str, what_to_do: str = "") -> None:
        """Count a node that was kept out, and log it. `who`: an address or peer id; `why`: a clause about it."""
        self._series.rejected(layer)
        what_to_do = what_to_do or _WHAT_TO_DO[layer]
        self._keep(layer, who[:WHO_CHARS_SHOWN], why, what_to_do)
        now = time.monotonic()
        if now - self._logged.get((layer, who), -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        # By layer, not by `who`: a new identity costs a stranger nothing.
        if (left_out := self._lines.due(layer.value)) is None:
            return
        if len(self._logged) >= LOGGED_MAX:
            del self._logged[next(iter(self._logged))]
        self._logged.pop((layer, who), None)
        self._logged[(layer, who)] = now
        log.warning(
            "kept out of the region",
            layer=layer.value,
            who=who,
            why=why,
            region=self._region or "(none)",
            left_out=left_out or None,
            what_to_do=what_to_do,
        )

    def _keep(self, layer: Layer, who: str, why: str, what_to_do: str) -> None:
        kept = self.kept_out.get((layer, who))
        if kept is None:
            kept = self.kept_out[layer, who] = KeptOut(layer.value, who, why, what_to_do)
            if len(self.kept_out) > KEPT_OUT_MAX:
                self.kept_out.popitem(last=False)
        self.kept_out.move_to_end((layer, who))
        kept.why, kept.what_to_do, kept.count, kept.time = why, what_to_do, kept.count + 1, time.time()
