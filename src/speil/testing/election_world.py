"""A region's election under virtual time: real electors, a modelled store of one Lease, faults, and a request log.

A discrete-event simulation: nothing sleeps, so a region of ten thousand nodes runs through an hour in a second. The
store gives ages in whole seconds, as the API server does. It can be paused (requests time out, some writes succeed all
the same), be down (requests fail at once), refuse requests, and have wrong clocks. Nodes can be killed, stopped and
frozen.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import floor
from random import Random

from speil.election.action import Action, Event, EventKind, Read, Write
from speil.election.config import DEFAULT_CONFIG, ElectionConfig
from speil.election.elector import Elector
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease

LATENCY_SECONDS = 0.003  # an API server's answer, from a request's start
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class LeaseStore:
    """The API server's part: one Lease, optimistic writes, ages by its own clocks."""

    lease: Lease | None = None
    written_at: float = 0.0
    paused_until: float = 0.0
    gone_until: float = 0.0
    denied: bool = False
    date_skew_seconds: float = 0.0  # the answering server's clock against the one that wrote
    tells_age: bool = True
    requests: list[tuple[float, str, str]] = field(default_factory=list)  # when, verb, node
    _versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def read(self, now: float) -> Lease | None:
        """A GET."""
        if self.lease is None:
            return None
        age = floor(now + self.date_skew_seconds) - floor(self.written_at) if self.tells_age else None
        return dataclasses.replace(self.lease, age_seconds=age)

    def write(self, write: Write, now: float) -> Lease | None:
        """A PUT; None where it conflicts. Creates what is not there, whatever version it names, as the API does."""
        if self.lease is not None and (write.base is None or write.base.version != self.lease.version):
            return None
        return self.put(write.record.stamped(_EPOCH + timedelta(seconds=now)), now)

    def put(self, record: LeaderElectionRecord, now: float) -> Lease:
        """Write without a version check, as kubectl can."""
        self.lease, self.written_at = Lease(record, str(next(self._versions))), now
        return self.lease


@dataclass
class Node:
    """An elector and the state of its process."""

    name: str
    elector: Elector
    alive: bool = True
    frozen_until: float = 0.0
    busy: bool = False  # a request is under way
    epoch: int = 0  # timers and answers of an earlier epoch are ignored


class World:
    """See the module. All randomness comes from the seed."""

    def __init__(
        self, seed: int, config: ElectionConfig = DEFAULT_CONFIG, region: str = "r", late_writes: bool = True
    ) -> None:
        self.rng, self.config, self.region, self.now = Random(seed), config, region, 0.0
        self.store = LeaseStore()
        self.nodes: dict[str, Node] = {}
        self.events: list[tuple[float, str, Event]] = []
        self._late_writes = late_writes
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()

    # --- setting up and breaking ------------------------------------------------------------------------

    def add(self, names: Iterable[str], size: int, spread_seconds: float = 0.0, owner: Owner | None = None) -> None:
        """Start nodes within `spread_seconds`; each estimates the region's size as `size`."""
        for name in names:
            node = self.nodes[name] = Node(name, Elector(self.config, name, owner or Owner(self.region), self.rng))
            node.elector.know(size, ())
            self.at(self.now + spread_seconds * self.rng.random(), partial(self._start, node))

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Call `do` at `time`."""
        heapq.heappush(self._queue, (time, next(self._sequence), do))

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.nodes[name].alive = False

    def stop(self, name: str) -> None:
        """SIGTERM: release, then end."""
        node = self.nodes[name]
        node.epoch += 1
        node.busy = False
        self._do(node, node.elector.stop(self.now))

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        node = self.nodes[name]
        node.frozen_until = max(node.frozen_until, self.now + seconds)  # a second freeze must not shorten the first

    def is_running(self, name: str) -> bool:
        """Whether it is alive and not frozen: only then can it stop."""
        node = self.nodes[name]
        return node.alive and node.frozen_until <= self.now

    # --- running ----------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = end

    def run_until(self, condition: Callable[[], object], limit_seconds: float) -> float:
        """Let time pass until `condition`; how long it took. Raises AssertionError at the limit."""
        began = self.now
        while not condition():
            if not self._queue or self._queue[0][0] > began + limit_seconds:
                raise AssertionError(f"not within {limit_seconds} s")
            self.now, _, do = heapq.heappop(self._queue)
            do()
        return self.now - began

    @property
    def holder(self) -> str:
        """The holder in the Lease; "" where there is none."""
        return self.store.lease.record.holder_identity if self.store.lease else ""

    @property
    def record(self) -> LeaderElectionRecord:
        """The record of the Lease, which must exist."""
        assert self.store.lease is not None
        return self.store.lease.record

    @property
    def leaders(self) -> list[str]:
        """The running nodes that believe that they lead; frozen ones are left out."""
        return [
            node.name
            for node in self.nodes.values()
            if node.alive and node.elector.leading and node.frozen_until <= self.now
        ]

    def led(self) -> bool:
        """Whether exactly one node leads, and it is the holder in the Lease."""
        return self.leaders == [self.holder]

    def heard(self, kind: EventKind, name: str | None = None) -> list[Event]:
        """The events of a kind, of one node or all."""
        return [event for _, node, event in self.events if event.kind is kind and name in (None, node)]

    def rate(self, verb: str, since: float) -> float:
        """Requests a second since a time."""
        return sum(1 for at, what, _ in self.store.requests if what == verb and at >= since) / (self.now - since)

    # --- a node's driver --------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        self._do(node, node.elector.start(self.now))

    def _wake(self, node: Node, epoch: int, do: Callable[[], list[Action]]) -> None:
        """Run `do` in the node's process, or when the process is no longer frozen."""
        if not node.alive or node.epoch != epoch:
            return
        if node.frozen_until > self.now:
            self.at(node.frozen_until, lambda: self._wake(node, epoch, do))
            return
        self._do(node, do())

    def _do(self, node: Node, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Event):
                self.events.append((self.now, node.name, action))
            else:
                assert not node.busy, "one request at a time"
                node.busy = True
                self._request(node, action)
        node.epoch += 1
        if node.elector.stopped:
            node.alive = False
        elif not node.busy:
            epoch = node.epoch
            self.at(
                max(node.elector.next_deadline(), self.now),
                lambda: self._wake(node, epoch, lambda: node.elector.tick(self.now)),
            )

    def _request(self, node: Node, request: Read | Write) -> None:
        store, sent = self.store, self.now
        store.requests.append((sent, "get" if isinstance(request, Read) else "put", node.name))
        epoch = node.epoch + 1  # `_do` counts on when it is through

        def answer(input: Callable[[float], list[Action]]) -> Callable[[], list[Action]]:
            def process() -> list[Action]:
                node.busy = False
                return input(self.now)

            return process

        def reply(after: float, input: Callable[[float], list[Action]]) -> None:
            self.at(sent + after, lambda: self._wake(node, epoch, answer(input)))

        elector = node.elector
        if store.paused_until > sent:
            if isinstance(request, Write) and self._late_writes and self.rng.random() < 0.5:
                self.at(store.paused_until, lambda: void(store.write(request, self.now)))
            reply(elector.request_deadline(sent) - sent, elector.failed)
        elif store.gone_until > sent:
            reply(LATENCY_SECONDS, elector.failed)
        elif store.denied:
            reply(LATENCY_SECONDS, lambda now: elector.failed(now, denied=True))
        elif isinstance(request, Read):
            lease = store.read(sent)
            reply(LATENCY_SECONDS, lambda now: elector.read(lease, now))
        elif (written := store.write(request, sent)) is None:
            reply(LATENCY_SECONDS, elector.conflicted)
        else:
            lease = written
            reply(LATENCY_SECONDS, lambda now: elector.written(lease, now))


def void(_: object) -> None:
    """Drop a result."""
