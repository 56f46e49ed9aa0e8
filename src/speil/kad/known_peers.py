"""Which peers a node stores for its next start: those it met last, with a limit for each network.

A node trusts this list after a restart, when it may have nothing else. So an address or a subnet of strangers has only
a few places. When the list is full, strangers are dropped before members and peers of this node's own network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from speil.kad.network_group import address_of, subnet_of
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

PER_ADDRESS_MAX = 4  # a node has an address of its own, except behind NAT
PER_SUBNET_MAX = 10  # of strangers


@dataclass(frozen=True, slots=True)
class _Known:
    peer: PeerInfo
    address: str
    subnet: str
    is_near: bool


class KnownPeers:
    """The list; iterating gives the oldest peer first."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._known: dict[PeerId, _Known] = {}

    def __iter__(self) -> Iterator[PeerInfo]:
        return iter([one.peer for one in self._known.values()])

    def add(self, peer: PeerInfo, host: str, *, is_near: bool, is_here: bool = False) -> None:
        """Add a peer, or make it the latest.

        host: the address that it comes from.
        is_near: in this node's own network, or a member.
        is_here: on this machine.
        """
        self._known.pop(peer.peer_id, None)
        one = self._known[peer.peer_id] = _Known(peer, address_of(host), subnet_of(host), is_near)
        if not is_here:
            self._bound([other for other in self._known.values() if other.address == one.address], PER_ADDRESS_MAX)
        if not is_near:
            strangers = [other for other in self._known.values() if not other.is_near]
            self._bound([other for other in strangers if other.subnet == one.subnet], PER_SUBNET_MAX)
        while len(self._known) > self._count_max:
            del self._known[self._next_to_drop().peer.peer_id]

    def _bound(self, group: list[_Known], count_max: int) -> None:
        for one in group[: max(0, len(group) - count_max)]:
            del self._known[one.peer.peer_id]

    def _next_to_drop(self) -> _Known:
        """The oldest of the fullest subnet of strangers, or the oldest of all where there are none."""
        strangers = [one for one in self._known.values() if not one.is_near]
        if not strangers:
            return next(iter(self._known.values()))
        counts = Counter(one.subnet for one in strangers)
        return max(strangers, key=lambda one: counts[one.subnet])
