"""What the demo prints: progress, a table of nodes, a table of regions; and what was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speil.oci.digest import Digest
from speil.overview.view import RegionView
from speil.survey.table import align, percent, size

# One, if no node is late. On a busy machine a node may wait in vain for another one, and downloads a layer by itself.
COPIES_MAX = 1.5


@dataclass(slots=True)
class Report:
    """Collects what was wrong in `failures`."""

    failures: list[str] = field(default_factory=list)

    def check(self, is_well: bool, failure: str) -> None:
        """Add `failure` unless `is_well`."""
        if not is_well:
            self.failures.append(failure)

    def shared(self, copies: Mapping[str, float]) -> None:
        """Check that the nodes of each region shared what one of them downloaded."""
        for region, count in copies.items():
            self.check(count <= COPIES_MAX, f"{region} took {count:.2f} copies of the image from the upstream")

    def stayed_inside(self, views: Sequence[RegionView]) -> None:
        """Check that no byte came into a region from outside."""
        for view in views:
            crossed = crossed_bytes(view)
            self.check(crossed == 0, f"{crossed} bytes came into {view.region} from outside of it")


def copies_of(size_bytes: int, sent_bytes: Counter[tuple[str, Digest]]) -> dict[str, float]:
    """By region, how often the upstream sent `size_bytes`, the size of the image for one platform."""
    total: Counter[str] = Counter()
    for (region, _), sent in sent_bytes.items():
        total[region] += sent
    return {region: sent / size_bytes for region, sent in total.items()}


def crossed_bytes(view: RegionView) -> int:
    """Bytes that the region's nodes got from peers, minus those that its own nodes sent; while no pull runs.

    Nodes send a little more than is received: of two peers that are asked at once, one is cancelled.
    """
    return max(view.total.peer_bytes - view.total.sent_bytes, 0)


def node_table(views: Sequence[RegionView], pulled_seconds: Mapping[str, float]) -> str:
    """One line for each node; `pulled_seconds` by host."""
    rows: list[tuple[str, ...]] = [("node", "own store", "from peers", "from upstream", "to peers", "pull")]
    for view in views:
        for node in view.nodes:
            total, name = node.total, node.name.partition(":")[0]
            sizes = map(size, (total.own_bytes, total.peer_bytes, total.upstream_bytes, total.sent_bytes))
            rows.append((name, *sizes, f"{pulled_seconds[name]:.2f} s"))
    return align(rows)


def region_table(views: Sequence[RegionView], copies: Mapping[str, float]) -> str:
    """One line for each region; `copies` by region: what the upstream sent to it, in images."""
    rows = [
        (
            "region",
            "leader",
            "nodes",
            "hit ratio",
            "by bytes",
            "from peers",
            "from upstream",
            "copies",
            "cross-region",
            "kept out",
        )
    ]
    for view in views:
        leaders = [node.name.partition(":")[0] for node in view.nodes if node.leads]
        total = view.total
        rows.append(
            (
                view.region,
                ", ".join(leaders) or "(none)",
                str(len(view.nodes)),
                percent(total.hit_ratio),
                percent(total.byte_ratio),
                size(total.peer_bytes),
                size(total.upstream_bytes),
                f"{copies.get(view.region, 0.0):.2f}",
                size(crossed_bytes(view)),
                str(view.rejected),
            )
        )
    return align(rows)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201 - the output of the command
