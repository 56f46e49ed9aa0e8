"""Drives an elector on a Lease: performs its requests one at a time, logs and counts what happened.

The election's log lines carry region, lease, identity, holder and transitions: `election joined`, `lease acquired`,
`lease renewed` (DEBUG), `lease lost`, `new leader`, `lease released`. A failure is logged once, until it changes or a
request succeeds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from random import Random

from speil.election.action import Action, Event, EventKind, Read, Write
from speil.election.config import ElectionConfig
from speil.election.elector import Elector
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease
from speil.lease.base import LeaseConflictError, LeaseDeniedError, LeaseError, LeaseLock
from speil.lease.series import LeaseSeries
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics

RELEASE_SECONDS_MAX = 2.0  # a node that stops does not wait longer for its Lease, which runs out by itself
_STATES = ("candidate", "follower", "leader")
_PHRASES = {
    EventKind.CANDIDATE: "election joined",
    EventKind.ACQUIRED: "lease acquired",
    EventKind.RENEWED: "lease renewed",
    EventKind.LOST: "lease lost",
    EventKind.NEW_LEADER: "new leader",
    EventKind.RELEASED: "lease released",
    EventKind.FOREIGN: "lease belongs to another region",
}

log = get_log("election")


@dataclass(frozen=True, slots=True)
class MeshView:
    """What the leader writes into the Lease for newcomers: the region's size (0: unknown), multiaddrs of live peers."""

    nodes: int = 0
    peers: tuple[str, ...] = ()


class LeaderElection:
    """One node's part in the election. It owns `lock` and closes it. `rng` spreads the requests over time."""

    def __init__(
        self,
        lock: LeaseLock,
        config: ElectionConfig,
        owner: Owner,
        metrics: Metrics,
        rng: Random,
        count_foreign: Callable[[], None] = lambda: None,
    ) -> None:
        """`count_foreign` is called when the Lease turns out to belong to another region."""
        self._lock, self._config, self._owner, self._rng = lock, config, owner, rng
        self._count_foreign = count_foreign
        self._series = metrics.of(LeaseSeries)
        self._elector: Elector | None = None
        self._renewed_at = nan
        self._known = asyncio.Event()
        self._mesh: Callable[[], MeshView] = MeshView
        self.failure = ""  # why the last request failed; "" where it succeeded
        self._series.renewal_age.set_function(lambda: time.monotonic() - self._renewed_at)

    @property
    def lease(self) -> Lease | None:
        """The Lease as last read or written, also while the API can't be reached."""
        return self._elector.lease if self._elector else None

    @property
    def leading(self) -> bool:
        """Whether this node leads."""
        return self._elector is not None and self._elector.leading

    @property
    def foreign(self) -> bool:
        """Whether the Lease is another region's, which this node does not believe."""
        return self._elector is not None and self._elector.foreign

    @property
    def own_record(self) -> LeaderElectionRecord | None:
        """The last record in the Lease that was this region's."""
        return self._elector.own if self._elector else None

    async def known(self) -> None:
        """Wait until the Lease was read or written, or a request for it failed (`failure` has the reason)."""
        await self._known.wait()

    async def run(self, identity: str, mesh: Callable[[], MeshView]) -> None:
        """Take part as `identity` until cancelled, then release the Lease if it is held, and close the lock.

        `mesh` is called before each request: it must be fast. The release takes RELEASE_SECONDS_MAX at most.
        """
        self._mesh = mesh
        self._elector = elector = Elector(self._config, identity, self._owner, self._rng)
        try:
            self._look_at_mesh(elector)
            await self._follow(elector, elector.start(time.monotonic()))
        except asyncio.CancelledError:
            await self._release(elector)
            raise
        finally:
            await self._lock.close()

    # --- the loop ---------------------------------------------------------------------------------------

    async def _follow(self, elector: Elector, actions: list[Action]) -> None:
        """Perform actions and what follows from them, until the elector has stopped."""
        while True:
            request = self._handle_events(actions)
            self._report(elector)
            if elector.stopped:
                return
            if request is not None:
                actions = await self._perform(elector, request)
                continue
            await asyncio.sleep(max(elector.next_deadline() - time.monotonic(), 0))
            self._look_at_mesh(elector)
            actions = elector.tick(time.monotonic())

    def _look_at_mesh(self, elector: Elector) -> None:
        view = self._mesh()
        elector.know(view.nodes, view.peers)

    async def _perform(self, elector: Elector, request: Read | Write) -> list[Action]:
        """One request, and the elector's actions that follow from its outcome."""
        verb = "get" if isinstance(request, Read) else "put"
        sent = time.monotonic()
        deadline = elector.request_deadline(sent)
        try:
            async with asyncio.timeout(deadline - sent):
                if isinstance(request, Read):
                    lease = await self._lock.get()
                else:
                    lease = await self._lock.put(request.record.stamped(datetime.now(UTC)), request.base)
        except LeaseConflictError:
            outcome, actions = "conflict", elector.conflicted(time.monotonic())
        except LeaseDeniedError as error:
            outcome, actions = "denied", elector.failed(time.monotonic(), denied=True)
            self._failed(str(error))
        except LeaseError as error:
            outcome, actions = "error", elector.failed(time.monotonic())
            self._failed(str(error))
        except TimeoutError:
            outcome, actions = "error", elector.failed(time.monotonic())
            self._failed(f"no answer within {deadline - sent:.1f} s")
        else:
            outcome = "ok"
            now = time.monotonic()
            if isinstance(request, Read):
                actions = elector.read(lease, now)
            else:
                assert lease is not None, "a write returns what it wrote"
                actions = elector.written(lease, now)
            self._succeeded(elector)
            self._note_age(lease, now)
        self._series.requests.labels(verb, outcome).inc()
        return actions

    async def _release(self, elector: Elector) -> None:
        actions = elector.stop(time.monotonic())
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX):
                await self._follow(elector, actions)
        except TimeoutError:
            log.warning(
                "lease not released in time",
                **self._where(elector),
                what_follows="the Lease runs out by itself, then another node leads",
            )

    # --- log and metrics --------------------------------------------------------------------------------

    def _handle_events(self, actions: list[Action]) -> Read | Write | None:
        """Log and count the events; the request among the actions, if there is one."""
        request = None
        for action in actions:
            if isinstance(action, Event):
                self._handle_event(action)
            else:
                assert request is None, "the elector asks for one request at a time"
                request = action
        return request

    def _handle_event(self, event: Event) -> None:
        self._series.events.labels(event.kind.name.lower()).inc()
        assert self._elector is not None, "events come from the elector"
        phrase = _PHRASES[event.kind]
        fields = {
            **self._where(self._elector),
            "holder": event.holder or None,
            "transitions": event.transitions,
            "detail": event.detail or None,
        }
        match event.kind:
            case EventKind.RENEWED if not event.detail:
                log.debug(phrase, **fields)
            case EventKind.LOST:
                log.warning(phrase, **fields)
            case EventKind.FOREIGN:
                self._count_foreign()
                log.error(
                    phrase,
                    **fields,
                    what_to_do="give each region its own --leader-election-name and --leader-election-namespace (its "
                    "own --lease-file where the Lease is a file); if nodes with several labels are one region, set "
                    "--region on all of them; if the Lease is right and its annotation is wrong, delete the Lease",
                    meanwhile="this node continues with the peers that it has",
                )
            case _:
                log.info(phrase, **fields)

    def _where(self, elector: Elector) -> dict[str, str]:
        return {"region": self._owner.region, "lease": str(self._lock), "identity": elector.identity}

    def _failed(self, failure: str) -> None:
        self._known.set()
        if failure != self.failure:
            self.failure = failure
            assert self._elector is not None
            log.warning("lease request failed, trying again", **self._where(self._elector), error=failure)

    def _succeeded(self, elector: Elector) -> None:
        if elector.lease is not None:
            self._known.set()
        if self.failure:
            self.failure = ""
            log.info("lease request succeeded again", **self._where(elector))

    def _note_age(self, lease: Lease | None, now: float) -> None:
        if lease is not None:
            self._renewed_at = now - max(lease.age_seconds or 0.0, 0.0)

    def _report(self, elector: Elector) -> None:
        state = "leader" if elector.leading else "candidate" if elector.lease is None else "follower"
        for one in _STATES:
            self._series.state.labels(one).set(one == state)
        if elector.lease is not None:
            self._series.transitions.set(elector.lease.record.leader_transitions)
