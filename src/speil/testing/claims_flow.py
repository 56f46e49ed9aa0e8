"""The nodes of `claims_world`, and how their bytes move: in steps, links divided equally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from speil.claims.asker import Asker
from speil.claims.umpire import Umpire
from speil.multiformats.peer_info import PeerInfo


@dataclass(slots=True)
class Transfer:
    """One node's download of one layer. `source`: a node, or None for the upstream once `upstream_at` has come."""

    key: bytes
    size: int
    offset: float = 0.0
    visible: float = 0.0  # what followers may read: the offset before this step
    source: WorldNode | None = None
    upstream_at: float | None = None
    byte_at: float = 0.0


@dataclass(eq=False)
class WorldNode:
    """A node. `boasts`: it says that it fetches, and never sends a byte. `side`: those on another are out of reach."""

    number: int
    peer: PeerInfo
    umpire: Umpire
    asker: Asker
    link: float
    upstream_max: float = float("inf")
    started_at: float = 0.0
    done_at: float | None = None
    alive: bool = True
    frozen: bool = False
    has_claims: bool = True
    boasts: bool = False
    side: int = 0
    share: str = ""
    next_layer: int = 0
    transfers: dict[bytes, Transfer] = field(default_factory=dict)
    stored: set[bytes] = field(default_factory=set)
    records: dict[bytes, list[PeerInfo]] = field(default_factory=dict)
    sent: float = 0.0
    longest_wait: float = 0.0  # without a byte, for one layer
    tick_at: float = float("inf")
    busy_until: float = 0.0  # with questions to its umpire


class Flow:
    """The bytes of all transfers."""

    def __init__(self, upstream: float) -> None:
        """`upstream` is what all fetchers together get, in bytes per second."""
        self.upstream = upstream
        self.upstream_bytes: Counter[bytes] = Counter()
        self.border_bytes = 0.0
        self.fan_max = 0
        self.feeding = Counter[int]()  # transfers by source, in the last step

    def step(self, nodes: Iterable[WorldNode], now: float, seconds: float) -> list[tuple[WorldNode, Transfer]]:
        """Move the bytes of `seconds`; returns the transfers that have all bytes now."""
        active, fetching = list[tuple[WorldNode, Transfer]](), 0
        feeding, loading = Counter[int](), Counter[int]()
        fans = Counter[tuple[int, bytes]]()
        for node in nodes:
            if not node.transfers or not node.alive or node.frozen or node.boasts:
                continue
            for transfer in node.transfers.values():
                transfer.visible = transfer.offset
                source = transfer.source
                if source is not None:
                    if not source.alive or source.frozen or source.boasts or source.side != node.side:
                        continue
                    feeding[source.number] += 1
                    fans[source.number, transfer.key] += 1
                elif transfer.upstream_at is not None and transfer.upstream_at <= now:
                    fetching += 1
                else:
                    continue
                loading[node.number] += 1
                active.append((node, transfer))
        self.feeding = feeding
        self.fan_max = max(self.fan_max, max(fans.values(), default=0))
        for node, transfer in active:
            down = node.link / loading[node.number]
            if (source := transfer.source) is None:
                rate, there = min(down, self.upstream / fetching, node.upstream_max), float(transfer.size)
            else:
                rate, there = min(down, source.link / feeding[source.number]), _readable(source, transfer)
            offset = min(transfer.offset + rate * seconds, there, transfer.size)
            if offset > transfer.offset:
                self._move(node, transfer, offset, now)
        return [(node, one) for node, one in active if one.offset >= one.size and one.visible < one.size]

    def _move(self, node: WorldNode, transfer: Transfer, offset: float, now: float) -> None:
        moved = int(offset) - int(transfer.offset)
        if (source := transfer.source) is None:
            self.upstream_bytes[transfer.key] += moved
        else:
            source.sent += moved
            if source.peer.zone != node.peer.zone:
                self.border_bytes += moved
        node.longest_wait = max(node.longest_wait, now - transfer.byte_at)
        transfer.offset, transfer.byte_at = offset, now
        node.asker.received(transfer.key, int(offset), now)


def _readable(source: WorldNode, transfer: Transfer) -> float:
    """How far a follower can read."""
    if transfer.key in source.stored:
        return transfer.size
    above = source.transfers.get(transfer.key)
    return above.visible if above else 0.0
