"""The cases: who pulls what, and when.

Sizes are for the full rates (200 Mbit/s upstream, 1 Gbit/s links). A slower lab has smaller layers, so that a pull
takes as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from speil.oci.image_builder import BuiltImage
from tests.system.herd.images import padded_image, two_images, two_platforms

MB = 1_000_000
TEN = (10 * MB,) * 10
SIXTY = (MB // 2,) * 60
ONE_LARGE = (2 << 30,)
LAYER_BYTES_MIN = 20_000


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull: of which image (a tag), on which of the case's nodes, and when; "" is this machine's platform."""

    tag: str
    node: int
    at_seconds: float = 0.0
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is pushed, by tag, and pulled."""

    images: dict[str, BuiltImage]
    pulls: list[Pull]

    def alone(self) -> Plan:
        """The same images, by the first node only, each once."""
        kinds = {(pull.tag, pull.platform) for pull in self.pulls}
        return Plan(self.images, [Pull(tag, 0, 0.0, platform) for tag, platform in sorted(kinds)])


Make = Callable[[int, float], Plan]


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table. `make` is called with the number of nodes and the scale of sizes, for each run anew."""

    name: str
    nodes: int
    make: Make
    zones: bool = False  # in the lab of two zones
    is_long: bool = False  # takes minutes
    modes: Sequence[str] = field(default=())  # keys; empty: all


def scaled(layers: Sequence[int], scale: float) -> list[int]:
    """The same layers for links of another rate."""
    return [max(int(size * scale), LAYER_BYTES_MIN) for size in layers]


def same(layers: Sequence[int], *, spread_seconds: float = 0.0, late_seconds: float = 0.0) -> Make:
    """All nodes pull one image: their starts are spread evenly; the last one comes later."""

    def make(nodes: int, scale: float) -> Plan:
        starts = [spread_seconds * number / max(nodes - 1, 1) for number in range(nodes)]
        starts[-1] += late_seconds
        pulls = [Pull("1", number, at) for number, at in enumerate(starts)]
        return Plan({"1": padded_image(scaled(layers, scale))}, pulls)

    return make


def sharing_layers(nodes: int, scale: float) -> Plan:
    """Two images with five layers in common; each node pulls one of them."""
    first, second = two_images(scaled(TEN[:5], scale), scaled(TEN[5:8], scale))
    return Plan({"1": first, "2": second}, [Pull("12"[number % 2], number) for number in range(nodes)])


def two_tags(nodes: int, scale: float) -> Plan:
    """Two names of one image; each node pulls one of them."""
    image = padded_image(scaled(TEN, scale))
    return Plan({"1": image, "2": image}, [Pull("12"[number % 2], number) for number in range(nodes)])


def platforms(nodes: int, scale: float) -> Plan:
    """Every second node is of another platform; half of the layers are the same for both."""
    image = two_platforms(scaled(TEN[:5], scale), scaled(TEN[5:8], scale))
    return Plan({"1": image}, [Pull("1", number, platform=("", "linux/arm64")[number % 2]) for number in range(nodes)])


CASES = (
    *(Case(f"ten layers, {nodes} nodes at once", nodes, same(TEN)) for nodes in (2, 3, 6, 12)),
    *(
        Case(f"ten layers, 6 nodes within {seconds:g} s", 6, same(TEN, spread_seconds=seconds))
        for seconds in (0.1, 1.0, 3.0)
    ),
    Case("sixty small layers, 6 nodes at once", 6, same(SIXTY)),
    Case("sixty small layers, 12 nodes at once", 12, same(SIXTY)),
    Case("two images that share layers, 6 nodes", 6, sharing_layers),
    Case("two tags of one image, 6 nodes", 6, two_tags),
    Case("two platforms, 6 nodes", 6, platforms),
    Case("a node joins in the middle, 6 nodes", 6, same(TEN, late_seconds=2.0)),
    Case("one layer of 2 GiB, 3 nodes at once", 3, same(ONE_LARGE), is_long=True, modes=("containerd-2",)),
    Case("two zones of six", 12, same(TEN), zones=True),
)
