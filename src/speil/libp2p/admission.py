"""Who may come in: so many in all, so many of one address or prefix, so many at once while shaking hands.

A thousand strangers then cost a bounded amount of memory. Honest peers still find a place: some are kept for the own
subnet and proven members, and a handshake that hangs makes way for one that has just begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.rate import Buckets

HANDSHAKES_MAX = 128  # at once; each costs a few milliseconds of CPU
STRANGERS_HANDSHAKES_MAX = 96  # of these
CONNECTIONS_MAX = 1024
STRANGERS_MAX = 768  # of these
CONNECTIONS_PER_ADDRESS_MAX = 64  # go-libp2p allows 8; NAT and host networks share an address, a /24 of strangers too
# that one address or prefix may open; go-libp2p allows 16, then one in five seconds. A handshake costs milliseconds
CONNECTIONS_BURST, CONNECTIONS_PER_SECOND = 256, 8.0
SHARES_MAX = 4096  # addresses and prefixes whose rate is remembered


@dataclass(eq=False, slots=True)
class Ticket:
    """One connection that came in, counted against `share`."""

    share: str
    is_near: bool
    close: Callable[[], None]


class Admission:
    """Counts connections that came in, by whose share they take."""

    def __init__(self, neighbourhood: Neighbourhood) -> None:
        self._neighbourhood = neighbourhood
        self._shares: Counter[str] = Counter()
        self._comings = Buckets(CONNECTIONS_BURST, CONNECTIONS_PER_SECOND, SHARES_MAX)
        self._strangers = 0
        self._shaking: dict[Ticket, None] = {}  # oldest first

    @property
    def count(self) -> int:
        """Connections that are open, those that still shake hands among them."""
        return self._shares.total()

    @property
    def shaking_count(self) -> int:
        """Those that still shake hands."""
        return len(self._shaking)

    def refusal(self, host: str, now: float) -> str | None:
        """Why one more from `host` can't come in (a metric label); None where it can."""
        share = self._neighbourhood.share_of(host)
        if self._shares[share] >= CONNECTIONS_PER_ADDRESS_MAX:
            return "too_many_from_address"
        if self._comings.of(share, now).is_empty(now):
            return "too_fast"
        is_near = self._neighbourhood.is_near(host)
        if self.count >= CONNECTIONS_MAX or (not is_near and self._strangers >= STRANGERS_MAX):
            return "too_many"
        return "too_many" if self._is_full(is_near) and self._slowest(is_near) is None else None

    def came(self, host: str, now: float, close: Callable[[], None]) -> tuple[Ticket, Ticket | None]:
        """One came in and begins to shake hands; and the one that has to make way for it, which is for the caller
        to `close`."""
        is_near = self._neighbourhood.is_near(host)
        slowest = self._slowest(is_near) if self._is_full(is_near) else None
        if slowest:
            del self._shaking[slowest]
        ticket = Ticket(self._neighbourhood.share_of(host), is_near, close)
        self._comings.of(ticket.share, now).take(now)
        self._shares[ticket.share] += 1
        self._strangers += not is_near
        self._shaking[ticket] = None
        return ticket, slowest

    def shook_hands(self, ticket: Ticket) -> None:
        """One is through with it, whichever way."""
        self._shaking.pop(ticket, None)

    def left(self, ticket: Ticket) -> None:
        """One is gone."""
        self._shaking.pop(ticket, None)
        self._strangers -= not ticket.is_near
        self._shares[ticket.share] -= 1
        if not self._shares[ticket.share]:
            del self._shares[ticket.share]

    def _is_full(self, is_near: bool) -> bool:
        if len(self._shaking) >= HANDSHAKES_MAX:
            return True
        return not is_near and sum(not one.is_near for one in self._shaking) >= STRANGERS_HANDSHAKES_MAX

    def _slowest(self, is_near: bool) -> Ticket | None:
        """Who makes way: the oldest handshake of whoever has most of them, a stranger's where there is one."""
        strangers = [one for one in self._shaking if not one.is_near]
        candidates = strangers or (list(self._shaking) if is_near else [])
        if not candidates:
            return None
        most, _ = Counter(one.share for one in candidates).most_common(1)[0]
        return next(one for one in candidates if one.share == most)
