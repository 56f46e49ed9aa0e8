"""How much this node can send, by what its network interfaces say.

A pod with a network of its own sees a virtual interface, which states no real speed: the link is unknown then, and the
node feeds two followers.
"""

from __future__ import annotations

from pathlib import Path

INTERFACES = Path("/sys/class/net")
INTERFACES_MAX = 256  # a node has one for each pod
_BYTES_PER_MEGABIT = 1_000_000 // 8


def link_bytes_per_second(interfaces: Path = INTERFACES) -> int:
    """The speed of the fastest physical interface that is up; 0 where none states one."""
    try:
        found = [_megabits(one) for one, _ in zip(interfaces.iterdir(), range(INTERFACES_MAX), strict=False)]
    except OSError:
        return 0
    return max(found, default=0) * _BYTES_PER_MEGABIT


def _megabits(interface: Path) -> int:
    if not (interface / "device").exists():  # virtual
        return 0
    try:
        return max(int((interface / "speed").read_text()), 0)
    except (OSError, ValueError):  # the link is down, or the driver states none
        return 0
