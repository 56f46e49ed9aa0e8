"""What the regions' nodes have counted over the last hour, in steps: hits and misses, and bytes by source.

Nodes report counters since their start. The difference of two reports of the same start counts for the step in which
the second one came. A node that has restarted counts from zero; what it did between its last report and its restart is
not known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speil.overview.view import NodeView, RegionView, Traffic

STEP_SECONDS = 60.0
STEPS_MAX = 60  # an hour
REGIONS_MAX = 200  # that have a history; further ones have none


@dataclass(slots=True)
class Step:
    """What was counted from `since` on, for STEP_SECONDS."""

    since: float
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class _Seen:
    started_at: float
    total: Traffic


class History:
    """The steps of each region. Times are the caller's, in seconds."""

    def __init__(self) -> None:
        self._steps: dict[str, deque[Step]] = {}
        self._seen: dict[str, _Seen] = {}  # by peer id

    def add(self, views: Iterable[RegionView], now: float) -> None:
        """The regions as they are at `now`."""
        seen: dict[str, _Seen] = {}
        for view in views:
            grown = sum((self._grown(node) for node in view.nodes if node.peer_id), Traffic())
            seen |= {node.peer_id: _Seen(node.started_at, node.total) for node in view.nodes if node.peer_id}
            if view.region in self._steps or len(self._steps) < REGIONS_MAX:
                self._add(self._steps.setdefault(view.region, deque(maxlen=STEPS_MAX)), grown, now)
        # a node that could not be read this time goes on from its last report
        self._seen = {**{peer: one for peer, one in self._seen.items() if peer not in seen}, **seen}
        while len(self._seen) > 2 * max(len(seen), 1):
            del self._seen[next(iter(self._seen))]

    def steps(self, region: str, now: float) -> list[Step]:
        """The steps of the last hour, the oldest first; steps without a report are left out."""
        return [step for step in self._steps.get(region, ()) if now - step.since < STEP_SECONDS * STEPS_MAX]

    def hour(self, region: str, now: float) -> Traffic:
        """The sum of them."""
        return sum((step.traffic for step in self.steps(region, now)), Traffic())

    def _grown(self, node: NodeView) -> Traffic:
        before, total = self._seen.get(node.peer_id), node.total
        if before is None:
            return Traffic()  # what it counted before it was seen first belongs to no step
        return total if before.started_at != node.started_at else _difference(total, before.total)

    def _add(self, steps: deque[Step], grown: Traffic, now: float) -> None:
        since = now // STEP_SECONDS * STEP_SECONDS
        if not steps or steps[-1].since != since:
            steps.append(Step(since))
        steps[-1].traffic += grown


def _difference(now: Traffic, before: Traffic) -> Traffic:
    fields: Mapping[str, object] = Traffic.__dataclass_fields__
    return Traffic(**{name: max(getattr(now, name) - getattr(before, name), 0) for name in fields})
