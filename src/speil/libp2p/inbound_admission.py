"""Which inbound connections are accepted: limits in all, by address or prefix, and during the handshake.

The limits bound the memory that a thousand strangers cost. Honest peers still get in: some places are reserved for this
node's subnet and for proven members, and a new handshake replaces the oldest one of the share with most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from speil.libp2p.neighbourhood import Neighbourhood
from speil.token_bucket import Buckets

HANDSHAKES_MAX = 128  # at once; each costs a few milliseconds of CPU
STRANGERS_HANDSHAKES_MAX = 96  # of these
CONNECTIONS_MAX = 1024
STRANGERS_MAX = 768  # of these
CONNECTIONS_PER_ADDRESS_MAX = 64  # go-libp2p allows 8; NAT and host networks share an address, a /24 of strangers too
# New ones of one address or prefix; go-libp2p allows 16, then one in five seconds. A handshake costs milliseconds.
CONNECTIONS_BURST, CONNECTIONS_PER_SECOND = 256, 8.0
SHARES_MAX = 4096  # addresses and prefixes whose rate is remembered


@dataclass(eq=False, slots=True)
class Ticket:
    """One accepted connection, counted for `share`; `close` ends it."""

    share: str
    is_near: bool
    close: Callable[[], None]


class InboundAdmission:
    """Counts inbound connections by address or prefix."""

    def __init__(self, neighbourhood: Neighbourhood) -> None:
        self._neighbourhood = neighbourhood
        self._shares: Counter[str] = Counter()
        self._rates = Buckets(CONNECTIONS_BURST, CONNECTIONS_PER_SECOND, SHARES_MAX)
        self._strangers = 0
        self._shaking: dict[Ticket, None] = {}  # oldest first

    @property
    def count(self) -> int:
        """Open connections, also those in the handshake."""
        return self._shares.total()

    @property
    def shaking_count(self) -> int:
        """Connections in the handshake."""
        return len(self._shaking)

    def refusal(self, host: str, now: float) -> str | None:
        """Why one more connection from `host` is refused (a metric label); None where it is accepted."""
        share = self._neighbourhood.share_of(host)
        if self._shares[share] >= CONNECTIONS_PER_ADDRESS_MAX:
            return "too_many_from_address"
        if self._rates.of(share, now).is_empty(now):
            return "too_fast"
        is_near = self._neighbourhood.is_near(host)
        if self.count >= CONNECTIONS_MAX or (not is_near and self._strangers >= STRANGERS_MAX):
            return "too_many"
        return "too_many" if self._is_full(is_near) and self._slowest(is_near) is None else None

    def accept(self, host: str, now: float, close: Callable[[], None]) -> tuple[Ticket, Ticket | None]:
        """Count a connection that begins its handshake; and the ticket that it replaces, which the caller closes."""
        is_near = self._neighbourhood.is_near(host)
        slowest = self._slowest(is_near) if self._is_full(is_near) else None
        if slowest:
            del self._shaking[slowest]
        ticket = Ticket(self._neighbourhood.share_of(host), is_near, close)
        self._rates.of(ticket.share, now).take(now)
        self._shares[ticket.share] += 1
        self._strangers += not is_near
        self._shaking[ticket] = None
        return ticket, slowest

    def handshake_ended(self, ticket: Ticket) -> None:
        """The handshake of a connection succeeded or failed."""
        self._shaking.pop(ticket, None)

    def closed(self, ticket: Ticket) -> None:
        """A connection has ended. Call this once."""
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
        """Which handshake is replaced: the oldest of the share that has most, a stranger's where there is one."""
        strangers = [one for one in self._shaking if not one.is_near]
        candidates = strangers or (list(self._shaking) if is_near else [])
        if not candidates:
            return None
        most, _ = Counter(one.share for one in candidates).most_common(1)[0]
        return next(one for one in candidates if one.share == most)
