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
from dataclasses import dataclass, field
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
from speil.claims.message import AskStatus, Phase, Reason, Status
from speil.claims.pull import Facts
from speil.claims.umpire import Around, Umpire
from speil.claims.umpire import Asker as Questioner
from speil.kad.key import position
from speil.kad.routing_table import K
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

MIB = 1 << 20
GIGABIT, HUNDRED_MEGABIT = 125_000_000.0, 12_500_000.0  # bytes per second
COMMIT_SECONDS = 0.01
ANNOUNCE_SECONDS = 0.025
HOLDER_SECONDS = 0.3  # until a request to a dead holder is given up
FEEDS_MAX = 16  # uploads of a node; more are refused as "full"


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
    """A node. `mute`: it takes messages and requests, and never sends a byte; `boasts`: it says that it fetches."""

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


class World:
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
        facts: Callable[[int], Facts] = lambda size: Facts(size),
    ) -> None:
        self.rng, self.now = Random(seed), 0.0
        self.layers = [(content_key(f"layer {seed} {index}"), size) for index, size in enumerate(layers)]
        self.sizes = dict(self.layers)
        self.image = sum(self.sizes.values())
        self.upstream, self.first_byte_seconds = upstream, first_byte_seconds
        self.slots, self.step_seconds, self._wrong, self._facts = slots, step_seconds, wrong_views, facts
        self.nodes: list[WorldNode] = []
        self._by_id: dict[PeerId, WorldNode] = {}
        self.messages = Counter[str]()
        self.upstream_bytes: Counter[bytes] = Counter()
        self.border_bytes = 0.0
        self.depth_max = self.fan_max = 0
        self.tell_bytes = self.alone_count = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._closest: dict[bytes, list[WorldNode]] = {}
        self._missing: dict[tuple[int, int], bool] = {}
        for number in range(nodes):
            self._make(number, f"zone-{number % zones}" if zones > 1 else "", link, share_wait_seconds)

    # --- what tests do ----------------------------------------------------------------------------------

    def start(self, spread_seconds: float = 0.0, nodes: Iterable[WorldNode] | None = None) -> None:
        """These nodes, or all, begin to pull within `spread_seconds` from now."""
        for node in self.nodes if nodes is None else nodes:
            self.at(self.rng.uniform(0, spread_seconds), lambda node=node: self._begin(node))  # type: ignore[misc]

    def at(self, seconds: float, do: Callable[[], None]) -> None:
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
            self._flow()
            flow_at += self.step_seconds

    def kill(self, node: WorldNode) -> None:
        """The process ends: its connections break at once."""
        node.alive = False
        for one in self.nodes:
            for key, transfer in one.transfers.items():
                if transfer.source is node:
                    self.at(0.001, lambda one=one, key=key: self._broke(one, key, node))  # type: ignore[misc]

    def cancel(self, node: WorldNode, key: bytes) -> None:
        """containerd gives up one layer; it is not pulled again."""
        node.transfers.pop(key, None)
        self._carry_out(node, node.asker.cancelled(key))
        for one in self.nodes:
            if (transfer := one.transfers.get(key)) and transfer.source is node:
                self.at(0.001, lambda one=one: self._broke(one, key, node))  # type: ignore[misc]

    def closest(self, key: bytes) -> list[WorldNode]:
        """The K nodes that are closest to a key, closest first."""
        if key not in self._closest:
            target = position(key)
            self._closest[key] = heapq.nsmallest(
                K, self.nodes, key=lambda node: position(node.peer.peer_id.multihash) ^ target
            )
        return self._closest[key]

    def fetchers(self, key: bytes) -> list[WorldNode]:
        """The living nodes that download a layer from the upstream."""
        return [
            node
            for node in self.nodes
            if (one := node.transfers.get(key))
            and one.upstream_at is not None
            and node.alive
            and key not in node.stored
        ]

    @property
    def copies(self) -> float:
        """Bytes that left the upstream, in images."""
        return sum(self.upstream_bytes.values()) / self.image

    @property
    def alone_seconds(self) -> float:
        """What one node alone needs at least."""
        return self.image / min(self.upstream, GIGABIT) + self.first_byte_seconds

    @property
    def slowest_seconds(self) -> float:
        """From its start until it has the image; infinite where a living node does not have it."""
        seconds = [
            node.done_at - node.started_at if node.done_at is not None else float("inf")
            for node in self.nodes
            if self._counts(node)
        ]
        return max(seconds)

    @property
    def messages_each(self) -> float:
        """Messages of a node for a layer: questions, requests, and what umpires tell; answers are not counted."""
        return self.messages.total() / (len(self.nodes) * len(self.layers))

    # --- nodes ------------------------------------------------------------------------------------------

    def _make(self, number: int, zone: str, link: float, share_wait_seconds: float) -> None:
        peer_id = PeerId(b"\x12\x20" + hashlib.sha256(b"node %d" % number).digest())
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        peer = PeerInfo(peer_id, (Multiaddr.of_tcp(host, 5001),), zone)
        seed = self.rng.random()
        node = WorldNode(number, peer, Umpire(Random(seed)), Asker(peer_id, share_wait_seconds), link, share=host)
        self.nodes.append(node)
        self._by_id[peer_id] = node

    def _counts(self, node: WorldNode) -> bool:
        return node.alive and not node.frozen and not node.boasts

    def _is_waited_for(self, node: WorldNode) -> bool:
        return self._counts(node) and node.done_at is None

    def _view(self, node: WorldNode, key: bytes) -> list[WorldNode]:
        """Whom a node knows of those closest to a key; itself always."""
        return [one for one in self.closest(key) if one is node or self._knows(node, one)]

    def _knows(self, node: WorldNode, other: WorldNode) -> bool:
        if not self._wrong:
            return True
        pair = node.number, other.number
        if pair not in self._missing:
            self._missing[pair] = self.rng.random() < self._wrong
        return not self._missing[pair]

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
            umpires = [one.peer for one in self._view(node, key)]
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
                    asker = Questioner(node.peer, node.share)
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
            targets = [other for other in self._view(node, one.key) if other is not node][:2]
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
            mine = position(target.peer.peer_id.multihash) ^ position(key)
            closer = [
                one.peer
                for one in self._view(target, key)
                if one.has_claims and position(one.peer.peer_id.multihash) ^ position(key) < mine
            ]
            records = target.records.get(key, [])
            around = Around(closer, self.rng.sample(records, min(20, len(records))))
            answer = target.umpire.ask(key, Questioner(node.peer, node.share), ask, self.now, around)
            self._plan(target)
            self._send(
                target,
                node,
                "",
                lambda: self._carry_out(node, node.asker.answered(key, target.peer.peer_id, answer, self.now)),
            )

        self._send(node, target, "" if target is node else "ask", arrive)

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
            feeds = (
                sum(one.source is source for other in self.nodes if other.transfers for one in other.transfers.values())
                if len(self.nodes) < 100
                else 0
            )
            if key not in source.transfers and key not in source.stored and not source.boasts:
                self._send(source, node, "", lambda: self._broke(node, key, source))
            elif feeds >= FEEDS_MAX:
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
                self.at(seconds, lambda holder=holder: self._accepted_by_holder(node, key, holder))  # type: ignore[misc]
                return
            seconds += 0.002 if holder.alive and not holder.frozen and holder.side == node.side else HOLDER_SECONDS
        self.at(seconds, lambda: self._carry_out(node, node.asker.refused(key, first, Reason.GONE, self.now)))

    def _accepted_by_holder(self, node: WorldNode, key: bytes, holder: WorldNode) -> None:
        if transfer := node.transfers.get(key):
            transfer.source = holder

    # --- bytes ------------------------------------------------------------------------------------------

    def _flow(self) -> None:
        """Move the bytes of one step."""
        active: list[tuple[WorldNode, Transfer]] = []
        fetching, feeding, loading = 0, Counter[int](), Counter[int]()
        for node in self.nodes:
            if not node.transfers or not node.alive or node.frozen or node.boasts:
                continue
            for transfer in node.transfers.values():
                transfer.visible = transfer.offset
                source = transfer.source
                if source is not None:
                    if not source.alive or source.frozen or source.boasts or source.side != node.side:
                        continue
                    feeding[source.number] += 1
                elif transfer.upstream_at is not None and transfer.upstream_at <= self.now:
                    fetching += 1
                else:
                    continue
                loading[node.number] += 1
                active.append((node, transfer))
        self.fan_max = max(
            self.fan_max, max(Counter((id(t.source), t.key) for _, t in active if t.source).values(), default=0)
        )
        for node, transfer in active:
            self._move(node, transfer, fetching, feeding, node.link / loading[node.number])
        for node, transfer in active:
            if transfer.offset >= transfer.size and transfer.visible < transfer.size:
                self.at(COMMIT_SECONDS, lambda node=node, key=transfer.key: self._committed(node, key))  # type: ignore[misc]

    def _move(self, node: WorldNode, transfer: Transfer, fetching: int, feeding: Counter[int], down: float) -> None:
        source, key = transfer.source, transfer.key
        if source is None:
            rate = min(down, self.upstream / fetching, node.upstream_max)
            offset = min(transfer.offset + rate * self.step_seconds, transfer.size)
            self.upstream_bytes[key] += int(offset) - int(transfer.offset)
        else:
            rate = min(down, source.link / feeding[source.number])
            above = source.transfers.get(key)
            there = transfer.size if key in source.stored else above.visible if above else 0.0
            offset = min(transfer.offset + rate * self.step_seconds, there, transfer.size)
            if offset <= transfer.offset:
                return
            source.sent += offset - transfer.offset
            if source.peer.zone != node.peer.zone:
                self.border_bytes += offset - transfer.offset
        transfer.offset = offset
        node.longest_wait = max(node.longest_wait, self.now - transfer.byte_at)
        transfer.byte_at = self.now
        node.asker.grown(key, int(offset), self.now)

    def _committed(self, node: WorldNode, key: bytes) -> None:
        if key not in node.transfers or not node.alive:
            return
        del node.transfers[key]
        node.stored.add(key)
        node.asker.completed(key)
        for one in self._view(node, key)[:3]:
            self.at(ANNOUNCE_SECONDS, lambda one=one: self._announced(one, node, key))  # type: ignore[misc]
        if len(node.stored) == len(self.layers):
            node.done_at = self.now
        self._begin(node)

    def _announced(self, umpire: WorldNode, node: WorldNode, key: bytes) -> None:
        if not umpire.alive or umpire.frozen or umpire.side != node.side:
            return
        umpire.records.setdefault(key, []).append(node.peer)
        umpire.umpire.announced(key, node.peer.peer_id, self.now)
        self._plan(umpire)
