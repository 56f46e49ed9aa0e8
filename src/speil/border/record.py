"""What happened at the border: every rejection is counted by its layer, and told once in a while with what to do."""

from __future__ import annotations

import time

from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.region.identity import REGION_LABEL
from speil.region.policy import Layer

LABEL_CHARS_SHOWN = 80  # what a peer tells goes into a log line
AGAIN_SECONDS = 600.0  # the same peer at the same layer is told this often
TOLD_MAX = 256  # peers remembered as told; strangers choose how many they are

_WHAT_TO_DO = {
    Layer.LEASE: "give each region its own --leader-election-name and --leader-election-namespace",
    Layer.NETWORK: "if it belongs to the region, add its network to --region-networks; if not, its region is set wrong",
    Layer.SECRET: "if it belongs to the region, give it the same --region-secret-file",
    Layer.IDENTIFY: "if it belongs to the region, correct its --region or Lease names; if not, find out who sent it: "
    "a bootstrap address or a Lease that two regions share",
    Layer.DHT_PROTOCOL: "use the same --dht-protocol-prefix on all nodes of the region, or leave it empty",
    Layer.HTTP: "if it belongs to the region, correct its --region; requests find their way by provider records",
    Layer.TOKEN: "if it belongs to the region, give it the same --region-secret-file, and look at its clock",
    Layer.ANSWER: "if it belongs to the region, give it this version of speil and the same --region-secret-file (or "
    "basic auth), and look at its clock; if not, somebody has the address that a node had; others are asked meanwhile",
    Layer.NODE_TOKEN: "if it is containerd, run `speil configuration` on this node with the region's secret "
    "and --node-name; pulls go on upstream",
}
_LABELS_DIFFER = (
    "if they are two regions, give each its own --leader-election-name and --leader-election-namespace; if they are "
    "one, set --region {region} on all of its nodes, and the label is not asked"
)

log = get_log("border")


class BorderRecord:
    """Counts and tells."""

    def __init__(self, region: str, metrics: Metrics) -> None:
        self._region, self._metrics = region, metrics
        self._told: dict[tuple[Layer, str], float] = {}
        self._lines = LineLimit()

    def other_label(self, layer: Layer, who: str, label: str, own: str) -> None:
        """Somebody of a region with our name was kept out, because its topology label is another."""
        why = f"its node's label {REGION_LABEL} is {label[:LABEL_CHARS_SHOWN]}, this node's {own}"
        self.rejected(layer, who, why, _LABELS_DIFFER.format(region=self._region or "<name>"))

    def rejected(self, layer: Layer, who: str, why: str, what_to_do: str = "") -> None:
        """Somebody (an address or a peer id) was kept out."""
        self._metrics.cross_region_rejected.labels(layer.value).inc()
        now = time.monotonic()
        if now - self._told.get((layer, who), -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        # an identity costs a stranger nothing: by layer, not by who
        if (left_out := self._lines.due(layer.value)) is None:
            return
        if len(self._told) >= TOLD_MAX:
            del self._told[next(iter(self._told))]
        self._told.pop((layer, who), None)
        self._told[(layer, who)] = now
        log.warning(
            "kept out of the region",
            layer=layer.value,
            who=who,
            why=why,
            region=self._region or "(none)",
            left_out=left_out or None,
            what_to_do=what_to_do or _WHAT_TO_DO[layer],
        )
