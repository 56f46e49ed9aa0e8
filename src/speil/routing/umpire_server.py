"""This node's umpire on the DHT. It answers questions of peers and of this node, and sends changes to other umpires.

Questions are answered at once from memory. A message that has no valid claim is handled as one without a claim. What
changed in a claim is sent to the next closest nodes by `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from speil.claims.action import TellNext
from speil.claims.codec import ClaimMessageError, decode, encode
from speil.claims.facts import Around, Sender
from speil.claims.message import (
    Alone,
    Answer,
    Ask,
    AskStatus,
    ClaimMessage,
    Defer,
    Fetch,
    Follow,
    Holders,
    Release,
    Tell,
    Why,
)
from speil.claims.states import NodeState
from speil.claims.umpire import Umpire
from speil.kad.key import place
from speil.kad.message import Message, MessageType
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.routing.claim_network import StatusOf, short
from speil.routing.claim_peers import ClaimPeers
from speil.routing.lookups import now
from speil.routing.network import NetworkError, PeerNetwork
from speil.routing.series import ClaimSeries
from speil.token_bucket import Bucket

TELL_BURST, TELLS_PER_SECOND = 256, 50.0  # so that a flood of questions does not become a flood of messages
CLAIMS_LISTED_MAX = 50  # in /debug/state
NODES_LISTED_MAX = 8  # fetchers of one claim, and its followers
HoldersOf = Callable[[bytes, str], Sequence[PeerInfo]]
_KINDS: dict[type[Answer], str] = {
    Fetch: "fetch",
    Follow: "follow",
    Holders: "holders",
    Defer: "defer",
    Alone: "alone",
}

log = get_log("claims")


class UmpireServer:
    """The umpire of one node."""

    def __init__(
        self, network: PeerNetwork, peers: ClaimPeers, holders: HoldersOf, series: ClaimSeries, rng: Random
    ) -> None:
        """`holders`: the peers with a provider record of a key, for an asker in a zone."""
        self._network, self._peers, self._holders, self._series = network, peers, holders, series
        self._umpire = Umpire(rng)
        self._status: StatusOf | None = None
        self._keys: dict[int, bytes] = {}  # the keys of claims by place: announcements name places
        self._changed, self._wakes_at = asyncio.Event(), float("inf")
        self._tells: Bucket | None = None
        self._lines = LineLimit()

    @property
    def umpire(self) -> Umpire:
        """The umpire itself, to be read only."""
        return self._umpire

    def enable(self, status: StatusOf) -> None:
        """Take part from now on; see ClaimNetwork.attach."""
        self._status = status
        self._network.enable_claims()

    @property
    def is_enabled(self) -> bool:
        """Whether this node takes part."""
        return self._status is not None

    # --- questions --------------------------------------------------------------------------------------

    def answer(self, peer: PeerInfo, key: bytes, claim: bytes) -> bytes:
        """The claim of the answer to a GET_PROVIDERS with a claim; b"" for none."""
        if self._status is None or not self._peers.understands(peer.peer_id):
            return b""
        match self._decoded(claim):
            case Ask() as ask:
                sender = self._peers.sender(peer)
                if not sender.peer.addresses:
                    self._refused("invalid")  # others could not follow it
                    return encode(Alone(Why.LIMIT))
                return encode(self._ask(key, sender, ask))
            case AskStatus():
                return encode(self._status(key))
            case None:
                return b""
            case _:
                self._refused("invalid")
                return b""

    def answer_own(self, key: bytes, ask: Ask) -> Answer:
        """The answer to a question of this node itself."""
        return self._ask(key, self._peers.own_sender, ask)

    def _ask(self, key: bytes, sender: Sender, ask: Ask) -> Answer:
        asker = sender.peer.peer_id
        holders = self._holders(key, sender.peer.zone)
        around = Around(self._peers.closer(key), holders, self._peers.barred(asker))
        answer = self._umpire.ask(key, sender, ask, now(), around)
        self._series.answers.labels(_KINDS[type(answer)]).inc()
        match answer:
            case Fetch():
                if (left_out := self._lines.due(sender.share)) is not None:
                    log.info("upstream fetch granted", key=short(key), peer=asker, left_out=left_out or None)
            case Follow(source):
                log.debug("follower placed", key=short(key), peer=asker, source=source.peer_id)
            case Alone(why):
                self._refused(why.name.lower())
                log.debug("claim refused", key=short(key), peer=asker, reason=why.name.lower())
            case _:
                pass
        self._noted(key)
        return answer

    # --- messages without an answer ---------------------------------------------------------------------

    def take(self, peer: PeerInfo, key: bytes, claim: bytes) -> None:
        """The claim of an ADD_PROVIDER."""
        if self._status is None or not self._peers.understands(peer.peer_id):
            return
        match self._decoded(claim):
            case Release() as release:
                self._released(key, self._peers.sender(peer), release)
            case Tell() as tell:
                self._told(peer, key, tell)
            case None:
                pass
            case _:
                self._refused("invalid")

    def release_own(self, key: bytes, release: Release) -> None:
        """A download of this node ended without the content."""
        self._released(key, self._peers.own_sender, release)

    def announced(self, peer_id: PeerId, places: Iterable[int]) -> None:
        """A peer, or this node, announced content."""
        if not self._keys:
            return
        for one in places:
            if key := self._keys.get(one):
                self._umpire.announced(key, peer_id, now())
                self._noted(key)

    def _released(self, key: bytes, sender: Sender, release: Release) -> None:
        log.debug("claim released", key=short(key), peer=sender.peer.peer_id, ending=release.ending.name.lower())
        self._umpire.released(key, sender, release, now())
        self._noted(key)

    def _told(self, peer: PeerInfo, key: bytes, tell: Tell) -> None:
        if not self._peers.is_near(peer.peer_id, key):
            self._refused("not_near")
            return
        usable = self._peers.checked(peer.peer_id, tell)
        rows = usable.rows if isinstance(usable, Tell) else ()
        self._refused("foreign", len(tell.rows) - len(rows))
        if rows:
            self._umpire.told(key, self._peers.sender(peer).share, Tell(rows), now())
            self._noted(key)

    def _decoded(self, claim: bytes) -> ClaimMessage | None:
        try:
            return decode(claim)
        except ClaimMessageError as error:
            self._refused("invalid")
            log.debug("claim message invalid", error=error)
            return None

    def _refused(self, reason: str, count: int = 1) -> None:
        if count > 0:
            self._series.refused.labels(reason).inc(count)

    # --- time, and what others are told -----------------------------------------------------------------

    async def run(self) -> None:
        """Tell the next closest nodes what changed, and forget what is too old, until cancelled."""
        async with asyncio.TaskGroup() as sends:
            while True:
                self._changed.clear()
                deadline = self._umpire.next_deadline()
                self._wakes_at = float("inf") if deadline is None else deadline
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._changed.wait()
                except TimeoutError:
                    self._tick(lambda peer, message: sends.create_task(self._send(peer, message)))

    def _tick(self, send: Callable[[PeerInfo, Message], object]) -> None:
        for action in self._umpire.tick(now()):
            self._tell(action, send)
        if len(self._keys) > len(self._umpire):  # some are forgotten
            self._keys = {one: key for one, key in self._keys.items() if self._umpire.claim(key)}
        self._series.held.set(len(self._umpire))

    def _tell(self, action: TellNext, send: Callable[[PeerInfo, Message], object]) -> None:
        """To each only the peers that may be named to it."""
        own = self._network.local.peer_id
        others = [peer for peer in self._peers.closest(action.key, action.nodes + 1) if peer.peer_id != own]
        for peer in others[: action.nodes]:
            foreign = self._peers.foreign_to(peer.peer_id)
            rows = tuple(row for row in action.tell.rows if row.peer.peer_id not in foreign)
            if not rows:
                continue
            self._tells = self._tells or Bucket(TELL_BURST, TELLS_PER_SECOND, now())
            if not self._tells.take(now()):
                self._refused("rate")
                continue
            send(peer, Message(MessageType.ADD_PROVIDER, action.key, claim=encode(Tell(rows))))

    async def _send(self, peer: PeerInfo, message: Message) -> None:
        """Sent once, without a retry: the message matters only where this node dies."""
        try:
            await self._network.send(peer, message)
        except NetworkError as error:
            log.debug("next closest node not reached", peer=peer.peer_id, error=error)

    def _noted(self, key: bytes) -> None:
        """A claim may have changed."""
        if self._umpire.claim(key) is None:
            self._keys.pop(place(key), None)
        else:
            self._keys[place(key)] = key
        self._series.held.set(len(self._umpire))
        if (self._umpire.next_deadline() or float("inf")) < self._wakes_at:
            self._changed.set()

    # --- what operators see -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How many claims there are, and the newest of them, as JSON takes it."""
        newest = list(self._keys.values())[-CLAIMS_LISTED_MAX:]
        return {"claims_held": len(self._umpire), "claims": [self._listed(key) for key in newest]}

    def _listed(self, key: bytes) -> dict[str, Any]:
        claim = self._umpire.claim(key)
        nodes = list(claim.nodes.values()) if claim else []
        by_state = {
            state: [node for node in nodes if node.state is state]
            for state in (NodeState.FETCHING, NodeState.FOLLOWING, NodeState.COMPLETE)
        }
        following = by_state[NodeState.FOLLOWING]
        sources = ((node.peer.peer_id, node.source) for node in following[:NODES_LISTED_MAX])
        return {
            "key": short(key),
            "fetchers": ", ".join(str(node.peer.peer_id) for node in by_state[NodeState.FETCHING][:NODES_LISTED_MAX]),
            "followers": len(following),
            "complete": len(by_state[NodeState.COMPLETE]),
            "first_followers": ", ".join(
                f"{one.short} from {source.peer.peer_id.short if source else 'nobody'}" for one, source in sources
            ),
        }
