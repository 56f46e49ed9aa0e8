"""The umpire: the node closest to a key decides who fetches its content and who follows whom.

It answers a question at once from memory: a source with a free place, or else that the asker fetches. A node
that leaves its source says why. A source that failed is not named again until it asks or announces, nor is any node
below it; so where a fetcher is gone, the first of its followers fetches, and the others are placed below that one.

An umpire that knows a node closer to the key names that one instead, unless it has placed nodes in this claim before:
then the tree is here. What changes in a claim is told to the next closest nodes, for the case that this node dies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from speil.claims.action import TellNext
from speil.claims.claim import CHAIN_MAX, PLACES, Claim, Node, is_above, places_for, root_of
from speil.claims.facts import NOTHING_AROUND, Around, Sender
from speil.claims.limits import Limits
from speil.claims.message import (
    HOLDERS_MAX,
    ROWS_MAX,
    Alone,
    Answer,
    Ask,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Row,
    Tell,
    Why,
)
from speil.claims.noted import Noted
from speil.claims.states import NodeEvent, NodeState
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

if TYPE_CHECKING:
    from random import Random

DOWNLOAD_SECONDS_MAX = 30 * 60.0  # a node in a tree that was not heard of for longer is forgotten
COMPLETE_SECONDS = 2 * 60.0  # then its provider record is enough
ROOTS_MAX = 8  # fetchers of one key at a time; further askers fetch without a claim
CRAWLS_MAX = 2  # of one key: where the second fetcher is slow too, more of them would not help
RETRY_SECONDS = 4.5  # a fetcher that was left without a byte is named again, at the earliest after its grant
TOLD_TO = 2  # nodes that take over where this one dies
GRANT_TOLD_TO = 4  # nodes that are asked where this one answers late: they must not grant
TELL_SECONDS = 0.1  # changes of one key are collected for so long; the first grant of a key is told at once
BLAME_SECONDS = 60.0  # a peer that failed followers of two shares is not named as a source for so long
BLAMES_MIN = 2  # shares; otherwise one network could exclude every other node
BLAMED_PEERS_MAX = 1_000
SPOILED_SECONDS = 10 * 60.0
SPOILED_MAX = 1_000  # keys
SPOILED_BY_MIN = 2  # shares that say so; one alone could keep a key from being shared
EXPIRE_SECONDS = 10.0
HOLDERS_KNOWN_MAX = 20  # taken from provider records, for one question
RECORDS_SHARE = "records"  # what provider records add counts against


class Umpire:
    """The claims of one node. Keys are content keys; times are the caller's monotonic seconds."""

    def __init__(self, rng: Random) -> None:
        self._rng, self._limits = rng, Limits()
        self._claims: dict[bytes, Claim] = {}
        self._untold: dict[bytes, dict[PeerId, Row]] = {}
        self._tell_at: dict[bytes, float] = {}
        self._granted: set[bytes] = set()  # keys whose first grant is still to be told
        self._blames = Noted[PeerId](BLAME_SECONDS, BLAMED_PEERS_MAX)
        self._spoiled = Noted[bytes](SPOILED_SECONDS, SPOILED_MAX)
        self._expire_at: float | None = None

    def __len__(self) -> int:
        return len(self._claims)

    @property
    def node_count(self) -> int:
        """Nodes in all claims."""
        return self._limits.total

    def claim(self, key: bytes) -> Claim | None:
        """The claim of a key, to be read only."""
        return self._claims.get(key)

    def ask(self, key: bytes, asker: Sender, ask: Ask, now: float, around: Around = NOTHING_AROUND) -> Answer:
        """Answer a question; `asker` may be this node itself."""
        if self._is_spoiled(key, now):
            return Alone(Why.SPOILED)
        claim = self._claims.get(key)
        if claim is None or not claim.is_own:
            passed = (*ask.dead, *around.barred)
            closer = next((one for one in around.closer if one.peer_id not in passed), None)
            if closer is not None:
                return Defer(closer)
        if claim is None:
            claim = self._claims[key] = Claim()
        answer = self._place(key, claim, asker, ask, now, around)
        if not claim.nodes:
            self._claims.pop(key, None)
        return answer

    def announced(self, key: bytes, peer_id: PeerId, now: float) -> None:
        """A peer announced that it has the whole content."""
        if (claim := self._claims.get(key)) and (node := claim.nodes.get(peer_id)):
            self._complete(claim, node, now)

    def released(self, key: bytes, asker: Sender, release: Release, now: float) -> None:
        """A peer's download ended without the content."""
        claim = self._claims.get(key)
        node = claim.nodes.get(asker.peer.peer_id) if claim else None
        if claim is None or node is None:
            return
        if release.ending is Ending.SPOILED:
            self._spoiled.note(key, now, asker.share)
        self._remove(key, claim, node, now)

    def told(self, key: bytes, share: str, tell: Tell, now: float) -> None:
        """Take the changes that another umpire sent. `share` is that umpire's.

        The caller accepts it only from a node that is among the closest to the key, and only the peers that this node
        would dial.
        """
        claim = self._claims.get(key)
        if claim is None:
            claim = self._claims[key] = Claim()
        for row in tell.rows[:ROWS_MAX]:
            self._take_row(claim, share, row, now)
        if not claim.nodes:
            self._claims.pop(key, None)
        self._plan_expiry(now)

    def next_deadline(self) -> float | None:
        """When to call `tick` next; None while there is no claim."""
        known = [*self._tell_at.values()]
        if self._expire_at is not None:
            known.append(self._expire_at)
        return min(known, default=None)

    def tick(self, now: float) -> list[TellNext]:
        """What to tell others now. Forgets what is too old."""
        due = [key for key, at in self._tell_at.items() if at <= now]
        actions = [one for key in due for one in self._tells(key)]
        if self._expire_at is not None and self._expire_at <= now:
            self._expire(now)
        return actions

    # --- one question -----------------------------------------------------------------------------------

    def _place(self, key: bytes, claim: Claim, asker: Sender, ask: Ask, now: float, around: Around) -> Answer:
        for holder in around.holders[:HOLDERS_KNOWN_MAX]:
            if holder.peer_id != asker.peer.peer_id and not self._is_blamed(holder.peer_id, now):
                self._add_holder(claim, holder, now)
        if ask.reason is Reason.CRAWLING and claim.crawls >= CRAWLS_MAX:
            ask = replace(ask, reason=Reason.MISS)  # the upstream itself is slow: the asker stays where it is
        without, full = {*ask.avoided, *around.barred}, set[PeerId]()
        if ask.source is not None and ask.reason is not Reason.MISS:
            (full if ask.reason in (Reason.FULL, Reason.SLOW) else without).add(ask.source)
            self._left_source(key, claim, asker, ask, now)
        node = claim.nodes.get(asker.peer.peer_id)
        if node is None:
            if not self._limits.allows(asker.peer.peer_id, asker.share, len(claim.nodes)):
                return Alone(Why.LIMIT)
            may_chain = len(claim.nodes) < CHAIN_MAX
            places = places_for(ask.size_bytes, ask.rate, ask.link) if may_chain else PLACES
            node = self._add(claim, asker.peer, asker.share, places, now)
        node.until = now + DOWNLOAD_SECONDS_MAX
        is_blamed = self._is_blamed(asker.peer.peer_id, now)
        if is_blamed:
            claim.limit(node)
        if ask.reason is Reason.MISS:
            if node.state is NodeState.FETCHING:
                return Fetch()  # its containerd asks again
            source = node.source
            if source and node.state is NodeState.FOLLOWING and claim.is_usable(source, node, without):
                return self._answer_with(claim, source, without)
        source = claim.find_source(node, without, full, self._rng)
        if source is None and ask.reason is Reason.NO_BYTE:
            retried = claim.retry({*without, asker.peer.peer_id}, now - RETRY_SECONDS)
            if retried is not None:
                self._changed(key, claim, retried, now)
                source = claim.find_source(node, without, full, self._rng)
        if source is not None:
            claim.is_own = claim.is_own or source.state is not NodeState.COMPLETE
            claim.change(node, NodeEvent.PLACED, source)
            self._changed(key, claim, node, now)
            return self._answer_with(claim, source, without | full)
        if holders := [one for one in around.holders if one.peer_id not in without and one.peer_id not in full]:
            self._remove(key, claim, node, now)
            return Holders(tuple(holders[:HOLDERS_MAX]))  # each has as many followers as it may, and refuses more
        if is_blamed or claim.roots - (node.state is NodeState.FETCHING) >= ROOTS_MAX:
            self._remove(key, claim, node, now)
            return Alone(Why.LIMIT)
        is_first = not claim.is_own
        claim.is_own = True
        claim.change(node, NodeEvent.GRANTED)
        node.granted_at = now
        self._changed(key, claim, node, now, at_once=is_first)
        return Fetch()

    def _left_source(self, key: bytes, claim: Claim, asker: Sender, ask: Ask, now: float) -> None:
        source = claim.nodes.get(ask.source) if ask.source else None
        if source is None:
            return
        is_follower = asker.peer.peer_id in source.followers
        if is_follower:
            claim.detach(claim.nodes[asker.peer.peer_id])
        waits_itself = ask.reason is Reason.NO_BYTE and source.state is NodeState.FOLLOWING
        if waits_itself or ask.reason in (Reason.FULL, Reason.SLOW):
            if is_follower:
                claim.limit(source)
        elif ask.reason.is_failure:
            source.blamed_by.add(asker.share)
            if is_follower or len(source.blamed_by) >= BLAMES_MIN:
                claim.crawls += ask.reason is Reason.CRAWLING and source.state is not NodeState.FAILED
                claim.change(source, NodeEvent.BLAMED)
                self._changed(key, claim, source, now)
            if ask.reason is not Reason.NO_BYTE:
                source.starved.clear()
            elif is_follower:
                source.starved.add(asker.share)

    def _answer_with(self, claim: Claim, source: Node, without: set[PeerId]) -> Answer:
        if source.state is not NodeState.COMPLETE:
            return Follow(source.peer)
        others = [node.peer for node in claim.complete_nodes(without | {source.peer.peer_id})]
        near = [peer for peer in others if peer.zone == source.peer.zone]
        others = near or others
        return Holders((source.peer, *self._rng.sample(others, min(HOLDERS_MAX - 1, len(others)))))

    # --- nodes ------------------------------------------------------------------------------------------

    def _add(self, claim: Claim, peer: PeerInfo, share: str, places: int, now: float) -> Node:
        node = Node(peer, share, places, now + DOWNLOAD_SECONDS_MAX)
        claim.add(node)
        self._limits.add(peer.peer_id, share)
        self._plan_expiry(now)
        return node

    def _add_holder(self, claim: Claim, holder: PeerInfo, now: float) -> None:
        node = claim.nodes.get(holder.peer_id)
        if node is None and self._limits.allows(holder.peer_id, RECORDS_SHARE, len(claim.nodes)):
            node = self._add(claim, holder, RECORDS_SHARE, PLACES, now)
            claim.change(node, NodeEvent.COMPLETED)
            node.until = now + COMPLETE_SECONDS
        elif node is not None and node.state is not NodeState.FAILED:
            self._complete(claim, node, now)

    def _complete(self, claim: Claim, node: Node, now: float) -> None:
        node.until = now + COMPLETE_SECONDS
        if node.state is NodeState.COMPLETE:
            return
        root = root_of(node)
        if not claim.has_completed and root.state is NodeState.FETCHING:
            claim.has_completed = True
            self._blame_idle(claim, root.granted_at, now)
        claim.change(node, NodeEvent.COMPLETED)  # the next closest have its provider record too

    def _blame_idle(self, claim: Claim, granted_at: float, now: float) -> None:
        """The first node has the content, from a fetcher that was granted at `granted_at`.

        Another fetcher that was granted before, and was left without a byte, was at fault: the upstream is not slow.
        """
        for node in claim.nodes.values():
            if node.state is NodeState.FAILED and node.starved and node.granted_at < granted_at:
                for share in node.starved:
                    self._blames.note(node.peer.peer_id, now, share)

    def _remove(self, key: bytes, claim: Claim, node: Node, now: float) -> None:
        claim.remove(node)
        self._limits.remove(node.peer.peer_id, node.share)
        self._changed(key, claim, node, now)
        if not claim.nodes:
            self._claims.pop(key, None)

    def _take_row(self, claim: Claim, share: str, row: Row, now: float) -> None:
        node = claim.nodes.get(row.peer.peer_id)
        if claim.is_own and node is not None and row.phase is Phase.FOLLOWING:
            return  # this node placed it itself
        if row.phase is Phase.NONE:
            if node is not None and node.state is not NodeState.UNKNOWN:
                claim.change(node, NodeEvent.BLAMED)  # its followers are placed elsewhere when they ask
            return
        if node is None:
            if not self._limits.allows(row.peer.peer_id, share, len(claim.nodes)):
                return
            node = self._add(claim, row.peer, share, min(row.places, PLACES), now)
        node.until = now + (COMPLETE_SECONDS if row.phase is Phase.COMPLETE else DOWNLOAD_SECONDS_MAX)
        if row.phase is Phase.FETCHING:
            claim.change(node, NodeEvent.GRANTED)
        elif row.phase is Phase.COMPLETE:
            claim.change(node, NodeEvent.COMPLETED)
        else:
            source = claim.nodes.get(row.source) if row.source else None
            if source is not None and (source is node or not is_above(source, node)):
                source = None
            claim.change(node, NodeEvent.PLACED, source)

    # --- what the next closest are told -----------------------------------------------------------------

    def _changed(self, key: bytes, claim: Claim, node: Node, now: float, *, at_once: bool = False) -> None:
        if not claim.is_own:
            return
        self._untold.setdefault(key, {})[node.peer.peer_id] = node.row
        if at_once:
            self._granted.add(key)
        at = now if at_once else now + TELL_SECONDS
        self._tell_at[key] = min(self._tell_at.get(key, at), at)

    def _tells(self, key: bytes) -> list[TellNext]:
        del self._tell_at[key]
        rows = [*self._untold.pop(key).values()]
        parts = [rows[start : start + ROWS_MAX] for start in range(0, len(rows), ROWS_MAX)]
        nodes = GRANT_TOLD_TO if key in self._granted else TOLD_TO
        self._granted.discard(key)
        return [TellNext(key, Tell(tuple(part)), nodes) for part in parts]

    # --- what is remembered -----------------------------------------------------------------------------

    def _is_blamed(self, peer_id: PeerId, now: float) -> bool:
        return self._blames.count(peer_id, now) >= BLAMES_MIN

    def _is_spoiled(self, key: bytes, now: float) -> bool:
        return self._spoiled.count(key, now) >= SPOILED_BY_MIN

    def _plan_expiry(self, now: float) -> None:
        if self._expire_at is None:
            self._expire_at = now + EXPIRE_SECONDS

    def _expire(self, now: float) -> None:
        for key, claim in list(self._claims.items()):
            for node in [node for node in claim.nodes.values() if node.until <= now]:
                self._remove(key, claim, node, now)
        self._expire_at = now + EXPIRE_SECONDS if self._claims else None
