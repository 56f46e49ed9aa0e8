"""Which peers sent right bytes, which sent wrong ones, and which are suspect: the memory behind `trust_states`.

A pull of several layers fails on one of them, and containerd hangs up on the others. So content that was cut short and
is asked for again from its start makes those of its senders suspect whose other content never reached the store.

A peer is a debtor while content that it delivered is not in the store: it is then not asked for content that is passed
on without a check, whatever it proved otherwise. Without that rule the next pull could fail on another of its layers.
Where suspects and debtors are the only peers left, containerd goes upstream. If it then asks again, the upstream did
not help either: anyone is asked, and the bytes are hashed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from speil.fetch.trust_states import CONTENT, PEER, ContentEvent, ContentState, PeerEvent, PeerState, after
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest

BAN_SECONDS = 10 * 60.0
SUSPECT_SECONDS = 10 * 60.0  # the kubelet's longest back-off is five minutes
SETTLE_SECONDS_MAX = 8.0  # a slow disk syncs a large layer for as long; the kubelet's next pull comes after ten
DELIVERIES_MAX = 1000  # remembered; a pull makes tens
PEERS_MAX = 1000  # in each state

_OWED = frozenset({ContentState.MISSING, ContentState.ASKED_AGAIN, ContentState.SENT_UPSTREAM})
_DOUBTED = frozenset({ContentState.ASKED_AGAIN, ContentState.SENT_UPSTREAM})
_UNVERIFIED = _OWED | {ContentState.DELIVERED}
_INCOMPLETE = frozenset({ContentState.UNKNOWN, ContentState.SENDING})

K = TypeVar("K")
V = TypeVar("V")


class Care(Enum):
    """How careful a request is with its peers."""

    NONE = auto()  # its bytes are verified before they are passed on, or a peer asks
    SUSPECTS = auto()  # suspects and debtors are not asked
    UNPROVEN = auto()  # nor is anyone who has not proven right; all bytes are hashed
    HASHED = auto()  # anyone is asked; all bytes are hashed


@dataclass(frozen=True, slots=True)
class Caution:
    """Which peers one request may ask. `suspects` sent this content before; `debtors` owe other content."""

    care: Care = Care.NONE
    suspects: frozenset[PeerId] = frozenset()
    debtors: frozenset[PeerId] = frozenset()

    @property
    def hashed(self) -> bool:
        """Whether bytes that are passed on are hashed on their way."""
        return self.care in (Care.UNPROVEN, Care.HASHED)

    @property
    def avoids_suspects(self) -> bool:
        """Whether peers that are suspect for other content are left out."""
        return self.care in (Care.SUSPECTS, Care.UNPROVEN)

    def allows(self, peer_id: PeerId, proven: bool) -> bool:
        """Whether a peer may be asked."""
        if peer_id in self.suspects or peer_id in self.debtors:
            return False
        return proven or self.care is not Care.UNPROVEN


NO_CAUTION = Caution()


@dataclass(slots=True)
class _Delivery:
    """`since` is when containerd got its last bytes, or was sent upstream without any."""

    state: ContentState = ContentState.UNKNOWN
    senders: set[PeerId] = field(default_factory=set)
    since: float = 0.0


class PeerTrust:
    """Content and peers by state. `now` is the caller's monotonic time in seconds."""

    def __init__(self) -> None:
        self._deliveries: OrderedDict[Digest, _Delivery] = OrderedDict()
        # each peer in one of them, with the time at which its state ends
        self._peers: dict[PeerState, OrderedDict[PeerId, float]] = {
            state: OrderedDict() for state in (PeerState.PROVEN, PeerState.SUSPECT, PeerState.BANNED)
        }

    # --- peers ------------------------------------------------------------------------------------------

    def is_proven(self, peer_id: PeerId) -> bool:
        """Whether it sent bytes that were seen to be right, and none in doubt since."""
        return peer_id in self._peers[PeerState.PROVEN]

    def is_suspect(self, peer_id: PeerId, now: float) -> bool:
        """Whether its bytes are to be hashed."""
        return self._state_of(peer_id, now) is PeerState.SUSPECT

    def is_banned(self, peer_id: PeerId, now: float) -> bool:
        """Whether it is not to be asked."""
        return self._state_of(peer_id, now) is PeerState.BANNED

    def proved(self, peer_id: PeerId, now: float) -> None:
        """Bytes of this peer were seen to be right."""
        self._happened(peer_id, PeerEvent.RIGHT, now)

    def lied(self, peer_id: PeerId, now: float) -> None:
        """Bytes of this peer alone were seen to be wrong."""
        self._happened(peer_id, PeerEvent.WRONG, now)

    def doubt(self, peer_ids: Iterable[PeerId], now: float) -> None:
        """One of these peers sent wrong bytes; which one is not known."""
        for peer_id in peer_ids:
            self._happened(peer_id, PeerEvent.DOUBTFUL, now)

    def _state_of(self, peer_id: PeerId, now: float) -> PeerState:
        for state, peers in self._peers.items():
            if (until := peers.get(peer_id)) is None:
                continue
            if until > now:
                return state
            del peers[peer_id]
            return after(PEER, state, PeerEvent.EXPIRED)
        return PeerState.UNKNOWN

    def _happened(self, peer_id: PeerId, event: PeerEvent, now: float) -> None:
        before = self._state_of(peer_id, now)
        state = after(PEER, before, event)
        if before is PeerState.BANNED and event is not PeerEvent.WRONG:
            return
        if before is not PeerState.UNKNOWN:
            del self._peers[before][peer_id]
        _put(self._peers[state], peer_id, now + _SECONDS[state], PEERS_MAX)

    # --- content that is passed on unverified ------------------------------------------------------------

    def remembers(self, digest: Digest, now: float) -> bool:
        """Whether content was delivered lately, in part or whole, or sent upstream for want of trust."""
        return self._delivery(digest, now).state is not ContentState.UNKNOWN

    def asked(self, digest: Digest, now: float, *, from_start: bool) -> Caution:
        """containerd asks for content, from its start or from where it broke off. Returns whom it may come from."""
        delivery = self._delivery(digest, now)
        event = ContentEvent.RESUMED
        if from_start:
            owing = delivery.senders & self._senders(_UNVERIFIED, now) if delivery.state is ContentState.SENDING else ()
            event = ContentEvent.ASKED_OF_DEBTORS if owing else ContentEvent.ASKED
            if owing:
                delivery.senders = set(owing)
        before = delivery.state
        if self._moved(digest, delivery, event, now) is ContentState.ASKED_AGAIN and before is not delivery.state:
            self.doubt(delivery.senders, now)
        if delivery.state is ContentState.SENT_UPSTREAM:
            return Caution(Care.HASHED)
        debtors = self._senders(_OWED, now)
        if delivery.state is ContentState.ASKED_AGAIN:
            return Caution(Care.UNPROVEN, frozenset(delivery.senders), debtors)
        return Caution(Care.SUSPECTS, debtors=debtors)

    def asked_before(self, digest: Digest, now: float) -> Caution:
        """Whom the content of a request may come from that `asked` was called for: the same request asks once more."""
        state, debtors = self._delivery(digest, now).state, self._senders(_OWED, now)
        return Caution(Care.UNPROVEN if state in _DOUBTED else Care.SUSPECTS, debtors=debtors)

    def turned_away(self, digest: Digest, now: float) -> None:
        """No peer served it, and containerd goes upstream."""
        delivery = self._delivery(digest, now)
        event = ContentEvent.DISTRUSTED if self._distrusts_anyone(now) else ContentEvent.GAVE_UP
        self._moved(digest, delivery, event, now)

    def stepped_aside(self, digest: Digest, now: float) -> None:
        """The request that was turned away ends without a byte, and containerd repeats it: no upstream was tried."""
        self._moved(digest, self._delivery(digest, now), ContentEvent.STEPPED_ASIDE, now)

    def sent(self, digest: Digest, peer_id: PeerId, now: float) -> None:
        """Bytes of this peer were passed on without a check."""
        delivery = self._delivery(digest, now)
        before = delivery.state
        state = self._moved(digest, delivery, ContentEvent.SENT, now)
        if state is ContentState.SENDING and before is not state:
            delivery.senders = set()
        delivery.senders.add(peer_id)

    def whole(self, digest: Digest, now: float) -> None:
        """containerd has the last byte of it."""
        self._moved(digest, self._delivery(digest, now), ContentEvent.COMPLETED, now)

    def settled(self, digest: Digest, now: float) -> None:
        """The content is right: its hash was, or the store, which verifies it, took it in.

        That proves its senders right only while it was not asked for again: then the right bytes came from elsewhere.
        """
        delivery = self._delivery(digest, now)
        before = delivery.state
        self._moved(digest, delivery, ContentEvent.VERIFIED, now)
        if before in (ContentState.DELIVERED, ContentState.MISSING):
            for sender in delivery.senders:
                self.proved(sender, now)

    def overdue(self, now: float) -> list[tuple[Digest, frozenset[PeerId]]]:
        """Content that should be in the store by now and is not, each with its senders. Each is returned once."""
        found = []
        for digest, delivery in list(self._deliveries.items()):
            if delivery.state is ContentState.DELIVERED and now - delivery.since > SETTLE_SECONDS_MAX:
                self._moved(digest, delivery, ContentEvent.OVERDUE, now)
                found.append((digest, frozenset(delivery.senders)))
        return found

    @property
    def unsettled(self) -> list[Digest]:
        """Content that was delivered and that the store may take in."""
        return [digest for digest, delivery in self._deliveries.items() if delivery.state in _UNVERIFIED]

    def _delivery(self, digest: Digest, now: float) -> _Delivery:
        """What is remembered, or a new one, which is not kept before it has a state."""
        delivery = self._deliveries.get(digest) or _Delivery()
        if delivery.state is not ContentState.UNKNOWN and now - delivery.since > SUSPECT_SECONDS:
            self._moved(digest, delivery, ContentEvent.EXPIRED, now)
            return _Delivery()
        return delivery

    def _moved(self, digest: Digest, delivery: _Delivery, event: ContentEvent, now: float) -> ContentState:
        """Carry out a transition; an UNKNOWN delivery is dropped."""
        state = after(CONTENT, delivery.state, event)
        if state is ContentState.UNKNOWN:
            self._deliveries.pop(digest, None)
        else:
            if delivery.state in _INCOMPLETE or state is ContentState.SENDING:
                delivery.since = now
            if state is not delivery.state or state is ContentState.SENDING:
                _put(self._deliveries, digest, delivery, DELIVERIES_MAX)
        delivery.state = state
        return state

    def _senders(self, states: Collection[ContentState], now: float) -> frozenset[PeerId]:
        """The senders of content in one of these states, delivered in the last SUSPECT_SECONDS."""
        return frozenset(
            sender
            for delivery in self._deliveries.values()
            if delivery.state in states and now - delivery.since <= SUSPECT_SECONDS
            for sender in delivery.senders
        )

    def _distrusts_anyone(self, now: float) -> bool:
        suspects = self._peers[PeerState.SUSPECT].values()
        return any(until > now for until in suspects) or bool(self._senders(_OWED, now))


_SECONDS = {PeerState.PROVEN: float("inf"), PeerState.SUSPECT: SUSPECT_SECONDS, PeerState.BANNED: BAN_SECONDS}


def _put(table: OrderedDict[K, V], key: K, value: V, entries_max: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > entries_max:
        table.popitem(last=False)
