"""Who sent right bytes, who sent wrong ones, and who is under suspicion.

Large content is passed on as it comes, and only containerd finds out at its end that the bytes were wrong. It keeps
what was right and never asks for it again; so content that containerd asks for once more, after it had it all, tells
on whoever sent it:

    delivered whole ──the store has it──────────────► its senders have proven right
        │
        └─asked for again─► its senders are suspect: others are asked, but only such as have proven right before,
              │             and their bytes are hashed on the way; where there are none the upstream is the other source
              └─asked for once more, having been turned away─► the upstream did not help: anyone, hashed

A pull of several layers fails on one of them, and containerd hangs up on the others: content that was cut short and is
asked for again from its start tells the same of a sender of which other content was delivered whole, and is not in the
store.

What was delivered whole and is not in the store after SETTLE_SECONDS_MAX is missing: until it turns up, its senders are
asked for nothing that is passed on unverified, whatever they have proven otherwise; or else the next pull would fail on
a layer that this one had not come to. Nor is a suspect, until it has proven right. Where that leaves nobody the client
is sent upstream; if that does not help either, and it comes again, anyone is asked, hashed. Whoever is caught with
wrong bytes is banned: not asked at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TypeVar

from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest

BAN_SECONDS = 10 * 60.0
SUSPECT_SECONDS = 10 * 60.0  # the kubelet's longest back-off is five minutes
SETTLE_SECONDS_MAX = 8.0  # a slow disk syncs a large layer for as long; the kubelet's next pull comes after ten
DELIVERIES_MAX = 1000  # remembered; a pull makes tens
PEERS_MAX = 1000  # in each list

K = TypeVar("K")
V = TypeVar("V")


class _State(Enum):
    SENDING = auto()
    WHOLE = auto()
    MISSING = auto()
    ASKED_AGAIN = auto()
    TURNED_AWAY = auto()


_DELIVERED = (_State.WHOLE, _State.MISSING)
_OWED = (_State.MISSING, _State.ASKED_AGAIN, _State.TURNED_AWAY)
_UNSETTLED = (_State.WHOLE, *_OWED)


@dataclass(slots=True)
class _Delivery:
    """What became of one content; `since` is when it was whole."""

    senders: set[PeerId] = field(default_factory=set)
    state: _State = _State.SENDING
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Caution:
    """What one request has to mind."""

    suspects: frozenset[PeerId] = frozenset()
    proven_only: bool = False
    hashed: bool = False
    avoids_suspects: bool = False  # those under suspicion for other content are not asked either
    debtors: frozenset[PeerId] = frozenset()  # nor those of whom other content is missing

    def allows(self, peer_id: PeerId, proven: bool) -> bool:
        """Whether a peer may be asked."""
        return not (peer_id in self.suspects or peer_id in self.debtors) and (proven or not self.proven_only)


NO_CAUTION = Caution()


class PeerTrust:
    """The memory; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._deliveries: OrderedDict[Digest, _Delivery] = OrderedDict()
        self._proven: OrderedDict[PeerId, None] = OrderedDict()
        self._suspects: OrderedDict[PeerId, float] = OrderedDict()
        self._banned: OrderedDict[PeerId, float] = OrderedDict()

    def is_proven(self, peer_id: PeerId) -> bool:
        """Whether it has sent bytes that were seen to be right."""
        return peer_id in self._proven

    def is_suspect(self, peer_id: PeerId, now: float) -> bool:
        """Whether its bytes are to be hashed."""
        return self._suspects.get(peer_id, 0.0) > now

    def is_banned(self, peer_id: PeerId, now: float) -> bool:
        """Whether it was caught a while ago."""
        return self._banned.get(peer_id, 0.0) > now

    def proved(self, peer_id: PeerId) -> None:
        """Bytes of this peer were seen to be right."""
        self._suspects.pop(peer_id, None)
        _put(self._proven, peer_id, None, PEERS_MAX)

    def lied(self, peer_id: PeerId, now: float) -> None:
        """Bytes of this peer alone were seen to be wrong."""
        self._proven.pop(peer_id, None)
        _put(self._banned, peer_id, now + BAN_SECONDS, PEERS_MAX)

    def doubt(self, peer_ids: Iterable[PeerId], now: float) -> None:
        """One of these sent wrong bytes; which one is not known."""
        for peer_id in peer_ids:
            _put(self._suspects, peer_id, now + SUSPECT_SECONDS, PEERS_MAX)

    # --- content that is passed on unverified ------------------------------------------------------------

    def asked(self, digest: Digest, now: float, *, from_start: bool) -> Caution:
        """containerd asks for content, from its start or from where it broke off: what to mind."""
        delivery = self._deliveries.get(digest)
        if delivery is None:
            return self._wary(now)
        if from_start and delivery.state in _DELIVERED and now - delivery.since <= SUSPECT_SECONDS:
            delivery.state = _State.ASKED_AGAIN
            self.doubt(delivery.senders, now)
        elif (
            from_start
            and delivery.state is _State.SENDING
            and (missing := delivery.senders & self._senders(_UNSETTLED, now))
        ):
            delivery.state, delivery.senders, delivery.since = _State.ASKED_AGAIN, missing, now
            self.doubt(missing, now)
        elif now - delivery.since > SUSPECT_SECONDS or (from_start and delivery.state is _State.SENDING):
            del self._deliveries[digest]
            return self._wary(now)
        if delivery.state is _State.ASKED_AGAIN:
            wary = self._wary(now)
            return replace(wary, suspects=frozenset(delivery.senders), proven_only=True, hashed=True)
        return Caution(hashed=True) if delivery.state is _State.TURNED_AWAY else self._wary(now)

    def _wary(self, now: float) -> Caution:
        """Of content that raises no suspicion itself."""
        return Caution(avoids_suspects=True, debtors=self._senders(_OWED, now))

    def _senders(self, states: tuple[_State, ...], now: float) -> frozenset[PeerId]:
        """Whose content is in one of these states, of what was delivered lately."""
        return frozenset(
            sender
            for delivery in self._deliveries.values()
            if delivery.state in states and now - delivery.since <= SUSPECT_SECONDS
            for sender in delivery.senders
        )

    def turned_away(self, digest: Digest, now: float) -> None:
        """The client was sent upstream. Where it was for want of anyone to trust, the next time anyone will do."""
        delivery = self._deliveries.get(digest)
        if delivery is None and self._doubts_anyone(now):
            delivery = _Delivery(state=_State.ASKED_AGAIN, since=now)
            _put(self._deliveries, digest, delivery, DELIVERIES_MAX)
        if delivery and delivery.state is _State.ASKED_AGAIN:
            delivery.state = _State.TURNED_AWAY

    def _doubts_anyone(self, now: float) -> bool:
        return any(until > now for until in self._suspects.values()) or bool(self._senders(_OWED, now))

    def sent(self, digest: Digest, peer_id: PeerId, now: float) -> None:
        """Bytes of this peer were passed on unverified."""
        delivery = self._deliveries.get(digest)
        if delivery is None or delivery.state in _DELIVERED:
            delivery = _Delivery()
        if delivery.state is _State.SENDING:
            delivery.since = now
        delivery.senders.add(peer_id)
        _put(self._deliveries, digest, delivery, DELIVERIES_MAX)

    def whole(self, digest: Digest, now: float) -> None:
        """The client has all of it."""
        delivery = self._deliveries.get(digest)
        if delivery and delivery.state is _State.SENDING:
            delivery.state, delivery.since = _State.WHOLE, now

    def settled(self, digest: Digest) -> None:
        """The content is known to be right: hashed on its way, or taken in by the store, which verifies it.

        That speaks for its senders only as long as it was not asked for again: then the right bytes are another's.
        """
        delivery = self._deliveries.pop(digest, None)
        if delivery and delivery.state in _DELIVERED:
            for sender in delivery.senders:
                self.proved(sender)

    def overdue(self, now: float) -> list[tuple[Digest, frozenset[PeerId]]]:
        """What should have turned up in the store by now and has not, each told once; and who sent it."""
        found = []
        for digest, delivery in self._deliveries.items():
            if delivery.state is _State.WHOLE and now - delivery.since > SETTLE_SECONDS_MAX:
                delivery.state = _State.MISSING
                found.append((digest, frozenset(delivery.senders)))
        return found

    @property
    def unsettled(self) -> list[Digest]:
        """What was delivered whole, and may turn up in the store."""
        return [digest for digest, delivery in self._deliveries.items() if delivery.state in _UNSETTLED]


def _put(table: OrderedDict[K, V], key: K, value: V, entries_max: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > entries_max:
        table.popitem(last=False)
