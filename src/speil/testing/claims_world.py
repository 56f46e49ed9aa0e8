"""A region that pulls one image at once, under virtual time: the shipped cores of claims, and a model of the rest.

Each node has an `Umpire` and an `Asker`. Messages take milliseconds and may be lost. Bytes move in steps: the upstream,
and each node's link in each direction, are divided equally among the transfers that use them, and a follower is never
ahead of its source. An equal division wastes what a transfer does not use, so times are upper bounds. Nodes can be
killed, frozen, cut off, slow, liars, or without claims; each node's view of who is closest may be wrong.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from random import Random

from speil.claims.action import (
    Action,
    AskSource,
    AskUmpire,
    GoUpstream,
    Join,
    Leave,
    SendRelease,
    UseHolders,
)
from speil.claims.asker import SHARE_WAIT_SECONDS, Asker
from speil.claims.codec import decode, encode
from speil.claims.facts import Around, Sender
from speil.claims.message import AskStatus, Phase, Reason, Status
from speil.claims.pull import Facts
from speil.claims.umpire import Umpire
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.testing.claims_figures import Figures
from speil.testing.claims_flow import Flow, Transfer, WorldNode
from speil.testing.claims_views import Views

MIB = 1 << 20
GIGABIT, HUNDRED_MEGABIT = 125_000_000.0, 12_500_000.0  # bytes per second
COMMIT_SECONDS = 0.01
ANNOUNCE_SECONDS = 0.025
HOLDER_SECONDS = 0.3  # until a request to a dead holder is given up
FEEDS_MAX = 16  # uploads of a node; more are refused as "full"


class World(Figures):
    """The region, its upstream, and what was counted."""

    def __init__(
        self,
        nodes: int,
        layers: Iterable[int],
        *,
        seed: int = 1,
        zones: int = 1,
        wrong_views: float = 0.0,
        upstream: float = HUNDRED_MEGABIT,
        link: float = GIGABIT,
        first_byte_seconds: float = 0.05,
        slots: int = 3,
        step_seconds: float = 0.05,
        share_wait_seconds: float = SHARE_WAIT_SECONDS,
        ask_seconds: float = 0.0,
        facts: Callable[[int], Facts] = lambda size: Facts(size),
    ) -> None:
        self.rng, self.now = Random(seed), 0.0
        self.layers = [(content_key(f"layer {seed} {index}"), size) for index, size in enumerate(layers)]
        self.sizes = dict(self.layers)
        self.image = sum(self.sizes.values())
        self.first_byte_seconds, self.ask_seconds = first_byte_seconds, ask_seconds
        self.slots, self.step_seconds, self._facts = slots, step_seconds, facts
        self.nodes: list[WorldNode] = []
        self._by_id: dict[PeerId, WorldNode] = {}
        self.messages = Counter[str]()
        self.flow = Flow(upstream)
        self.depth_max = 0
        self.tell_bytes = self.alone_count = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self.views = Views(self.nodes, wrong_views, self.rng)
        for number in range(nodes):
            self._make(number, f"zone-{number % zones}" if zones > 1 else "", link, share_wait_seconds)

    # --- what tests do ----------------------------------------------------------------------------------

    def start(self, spread_seconds: float = 0.0, nodes: Iterable[WorldNode] | None = None) -> None:
        """These nodes, or all, begin to pull within `spread_seconds` from now."""
        for node in self.nodes if nodes is None else nodes:
            self.at(self.rng.uniform(0, spread_seconds), partial(self._begin, node))

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something `seconds` from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do))

    def run(self, seconds: float = 600.0) -> None:
        """Until all living nodes have the image, or `seconds` from now."""
        until, flow_at = self.now + seconds, self.now + self.step_seconds
        while self.now < until and any(self._is_waited_for(node) for node in self.nodes):
            while self._events and self._events[0][0] <= flow_at:
                self.now, _, do = heapq.heappop(self._events)
                do()
            self.now = flow_at
            for node, transfer in self.flow.step(self.nodes, self.now, self.step_seconds):
                self.at(COMMIT_SECONDS, partial(self._committed, node, transfer.key))
            flow_at += self.step_seconds

    def kill(self, node: WorldNode) -> None:
        """The process ends: its connections break at once."""
        node.alive = False
        for one in self.nodes:
            for key, transfer in one.transfers.items():
                if transfer.source is node:
                    self.at(0.001, partial(self._broke, one, key, node))

    def cancel(self, node: WorldNode, key: bytes) -> None:
        """containerd gives up one layer; it is not pulled again."""
        node.transfers.pop(key, None)
        self._carry_out(node, node.asker.cancelled(key))
        for one in self.nodes:
            if (transfer := one.transfers.get(key)) and transfer.source is node:
                self.at(0.001, partial(self._broke, one, key, node))

    # --- nodes ------------------------------------------------------------------------------------------

    def _make(self, number: int, zone: str, link: float, share_wait_seconds: float) -> None:
        peer_id = PeerId(b"\x12\x20" + hashlib.sha256(b"node %d" % number).digest())
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        peer = PeerInfo(peer_id, (Multiaddr.of_tcp(host, 5001),), zone)
        seed = self.rng.random()
        node = WorldNode(number, peer, Umpire(Random(seed)), Asker(peer_id, share_wait_seconds), link, share=host)
        self.nodes.append(node)
        self._by_id[peer_id] = node

    def _is_waited_for(self, node: WorldNode) -> bool:
        return self._counts(node) and node.done_at is None

    def _begin(self, node: WorldNode) -> None:
        if not node.alive:
            return
        if not node.next_layer:
            node.started_at = self.now
        while node.next_layer < len(self.layers) and len(node.transfers) < self.slots:
            key, size = self.layers[node.next_layer]
            node.next_layer += 1
            node.transfers[key] = Transfer(key, size, byte_at=self.now)
            if not node.has_claims:
                self._carry_out(node, [GoUpstream(key, claimed=False)])
                continue
            umpires = [one.peer for one in self.views.of(node, key)]
            self._carry_out(node, node.asker.miss(key, umpires, self._facts(size), self.now))

    # --- messages ---------------------------------------------------------------------------------------

    def _send(self, sender: WorldNode, target: WorldNode, name: str, do: Callable[[], None]) -> None:
        """`do` happens at the target, if the message gets there."""
        if name:
            self.messages[name] += 1
        if sender is target:
            do()
            return

        def arrive() -> None:
            if target.alive and not target.frozen and sender.side == target.side:
                do()

        if sender.alive and not sender.frozen:
            self.at(self.rng.uniform(0.0005, 0.0025), arrive)

    def _carry_out(self, node: WorldNode, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case AskUmpire():
                    self._ask(node, action)
                case Join(key, source, _):
                    self._join(node, key, self._by_id[source.peer_id])
                case AskSource(key, source):
                    self._ask_source(node, key, self._by_id[source.peer_id])
                case Leave(key, _, _):
                    if transfer := node.transfers.get(key):
                        transfer.source = None
                case GoUpstream(key, claimed):
                    self.alone_count += not claimed
                    if (transfer := node.transfers.get(key)) and transfer.upstream_at is None:
                        transfer.source, transfer.upstream_at = None, self.now + self.first_byte_seconds
                case UseHolders(key, peers, _):
                    self._use_holders(node, key, [self._by_id[peer.peer_id] for peer in peers])
                case SendRelease(key, umpire, release):
                    target = self._by_id[umpire.peer_id]
                    asker = Sender(node.peer, node.share)
                    self._send(
                        node,
                        target,
                        "release",
                        lambda t=target, k=key, a=asker, r=release: t.umpire.released(k, a, r, self.now),  # type: ignore[misc]
                    )
        self._plan(node)

    def _plan(self, node: WorldNode) -> None:
        """Tick the node's cores when they are due."""
        dues = [at for at in (node.asker.next_deadline(), node.umpire.next_deadline()) if at is not None]
        due = min(dues, default=float("inf"))
        if due < node.tick_at:
            node.tick_at = due
            self.at(max(due - self.now, 0), lambda: self._tick(node, due))

    def _tick(self, node: WorldNode, due: float) -> None:
        if node.tick_at != due:
            return
        node.tick_at = float("inf")
        if not node.alive or node.frozen:
            return
        for one in node.umpire.tick(self.now):
            targets = [other for other in self.views.of(node, one.key) if other is not node][: one.nodes]
            data = encode(one.tell)
            assert decode(data) == one.tell
            self.tell_bytes += len(data) * len(targets)
            for other in targets:
                self._send(
                    node,
                    other,
                    "tell",
                    lambda other=other, one=one: self._told(other, one.key, node.share, one.tell),  # type: ignore[misc]
                )
        self._carry_out(node, node.asker.tick(self.now))

    def _told(self, node: WorldNode, key: bytes, share: str, tell: object) -> None:
        node.umpire.told(key, share, tell, self.now)  # type: ignore[arg-type]
        self._plan(node)

    def _ask(self, node: WorldNode, action: AskUmpire) -> None:
        target, key = self._by_id[action.umpire.peer_id], action.key
        ask = action.ask

        def arrive() -> None:
            if not target.has_claims:
                self._send(
                    target,
                    node,
                    "",
                    lambda: self._carry_out(node, node.asker.unanswered(key, target.peer.peer_id, self.now)),
                )
                return
            closer = [one.peer for one in self.views.closer(target, key)]
            records = target.records.get(key, [])
            around = Around(closer, self.rng.sample(records, min(20, len(records))))
            answer = target.umpire.ask(key, Sender(node.peer, node.share), ask, self.now, around)
            self._plan(target)
            self._send(
                target,
                node,
                "",
                lambda: self._carry_out(node, node.asker.answered(key, target.peer.peer_id, answer, self.now)),
            )

        def wait_in_line() -> None:
            target.busy_until = max(target.busy_until, self.now) + self.ask_seconds
            self.at(target.busy_until - self.now, arrive)

        in_line = wait_in_line if self.ask_seconds else arrive
        self._send(node, target, "" if target is node else "ask", in_line)

    def _ask_source(self, node: WorldNode, key: bytes, source: WorldNode) -> None:
        def arrive() -> None:
            assert decode(encode(AskStatus())) == AskStatus()
            said = Status(Phase.FETCHING) if source.boasts else source.asker.status(key, is_stored=key in source.stored)
            self._send(
                source,
                node,
                "",
                lambda: self._carry_out(node, node.asker.source_said(key, source.peer.peer_id, said, self.now)),
            )

        self._send(node, source, "status", arrive)

    def _join(self, node: WorldNode, key: bytes, source: WorldNode) -> None:
        if not source.alive:
            self.at(0.001, lambda: self._broke(node, key, source))
            return

        def arrive() -> None:
            if key not in source.transfers and key not in source.stored and not source.boasts:
                self._send(source, node, "", lambda: self._broke(node, key, source))
            elif self.flow.feeding[source.number] >= FEEDS_MAX:
                self._send(source, node, "", lambda: self._broke(node, key, source, Reason.FULL))
            else:
                self._send(source, node, "", lambda: self._accepted(node, key, source))

        self._send(node, source, "join", arrive)

    def _accepted(self, node: WorldNode, key: bytes, source: WorldNode) -> None:
        pull, transfer = node.asker.pull(key), node.transfers.get(key)
        if not pull or not transfer or pull.source is None or pull.source.peer_id != source.peer.peer_id:
            return
        node.asker.accepted(key, source.peer.peer_id, self.now)
        transfer.source = source
        self.depth_max = max(self.depth_max, self._depth(node, key))

    def _depth(self, node: WorldNode, key: bytes) -> int:
        depth = 0
        one: WorldNode | None = node
        while one is not None and (transfer := one.transfers.get(key)) and depth < len(self.nodes):
            one, depth = transfer.source, depth + 1
        return depth

    def _broke(self, node: WorldNode, key: bytes, source: WorldNode, reason: Reason = Reason.GONE) -> None:
        if transfer := node.transfers.get(key):
            if transfer.source is source:
                transfer.source = None
            self._carry_out(node, node.asker.refused(key, source.peer.peer_id, reason, self.now))

    def _use_holders(self, node: WorldNode, key: bytes, holders: list[WorldNode]) -> None:
        """One after the other, as a request with known providers does."""
        first, seconds = holders[0].peer.peer_id, 0.002
        for holder in holders:
            if holder.alive and not holder.frozen and holder.side == node.side and key in holder.stored:
                self.messages["join"] += 1
                self.at(seconds, partial(self._accepted_by_holder, node, key, holder))
                return
            seconds += 0.002 if holder.alive and not holder.frozen and holder.side == node.side else HOLDER_SECONDS
        self.at(seconds, lambda: self._carry_out(node, node.asker.refused(key, first, Reason.GONE, self.now)))

    def _accepted_by_holder(self, node: WorldNode, key: bytes, holder: WorldNode) -> None:
        if transfer := node.transfers.get(key):
            transfer.source = holder

    # --- ends -------------------------------------------------------------------------------------------

    def _committed(self, node: WorldNode, key: bytes) -> None:
        if key not in node.transfers or not node.alive or node.frozen:
            return
        del node.transfers[key]
        node.stored.add(key)
        node.asker.completed(key, self.now)
        for one in self.views.of(node, key)[:3]:
            self.at(ANNOUNCE_SECONDS, partial(self._announced, one, node, key))
        if len(node.stored) == len(self.layers):
            node.done_at = self.now
        self._begin(node)

    def _announced(self, umpire: WorldNode, node: WorldNode, key: bytes) -> None:
        if not umpire.alive or umpire.frozen or umpire.side != node.side:
            return
        umpire.records.setdefault(key, []).append(node.peer)
        umpire.umpire.announced(key, node.peer.peer_id, self.now)
        self._plan(umpire)
