"""Drives an elector on a Lease: performs its requests in time, and tells the cycle of the election.

The cycle is in the log, each line with region, Lease, holder and transitions: candidate, acquired, renewed (debug),
lost, new leader, released. A request that fails is told once, until its failure is another one or it succeeds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from random import Random

from speil.election.config import ElectionConfig
from speil.election.elector import Action, Elector, Event, EventKind, Read, Write
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease
from speil.kube.lease.base import LeaseConflictError, LeaseDeniedError, LeaseError, LeaseLock
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics

RELEASE_SECONDS_MAX = 2.0  # a node that stops does not wait longer for its Lease; it runs out by itself
_STATES = ("candidate", "follower", "leader")

log = get_log("election")


@dataclass(frozen=True, slots=True)
class MeshView:
    """What the leader tells newcomers: the region's size (0: unknown), and addresses of live peers."""

    nodes: int = 0
    peers: tuple[str, ...] = ()


class LeaderElection:
    """One node's part in the election. `rng` spreads its requests over time."""

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
        self._count_foreign = count_foreign
        self._lock, self._config, self._owner, self._metrics, self._rng = lock, config, owner, metrics, rng
        self._elector: Elector | None = None
        self._writing = False
        self._renewed_at = nan
        self._known = asyncio.Event()
        self._mesh: Callable[[], MeshView] = MeshView
        self.failure = ""  # why the last request failed; "" after one that did not
        metrics.election_renewal_age.set_function(lambda: time.monotonic() - self._renewed_at)

    @property
    def lease(self) -> Lease | None:
        """The Lease as it was last seen, whatever became of the API since."""
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
        """What last stood in the Lease when it was this region's."""
        return self._elector.own if self._elector else None

    async def known(self) -> None:
        """Wait until the Lease was seen or a request for it failed (`failure` says how)."""
        await self._known.wait()

    async def run(self, identity: str, mesh: Callable[[], MeshView]) -> None:
        """Take part as `identity` until cancelled; then release the Lease, if it is held. `mesh` is asked often."""
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
            request = self._tell(actions)
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
        """One request, and what the elector makes of its outcome."""
        verb = "get" if isinstance(request, Read) else "put"
        sent = time.monotonic()
        deadline = elector.request_deadline(sent)
        self._writing = isinstance(request, Write)
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
        self._writing = False  # not when it was cut off: then its outcome is in doubt
        self._metrics.election_requests.labels(verb, outcome).inc()
        return actions

    async def _release(self, elector: Elector) -> None:
        actions = elector.stop(time.monotonic(), in_doubt=self._writing)
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX):
                await self._follow(elector, actions)
        except TimeoutError:
            log.warning("the Lease could not be released in time: it runs out by itself", **self._where(elector))

    # --- telling ----------------------------------------------------------------------------------------

    def _tell(self, actions: list[Action]) -> Read | Write | None:
        """Log and count the events; the request among the actions, if there is one."""
        request = None
        for action in actions:
            if isinstance(action, Event):
                self._tell_event(action)
            else:
                assert request is None, "the elector asks for one thing at a time"
                request = action
        return request

    def _tell_event(self, event: Event) -> None:
        self._metrics.election_events.labels(event.kind.name.lower()).inc()
        if event.kind is EventKind.FOREIGN:
            self._count_foreign()
        assert self._elector is not None, "events come from the elector"
        fields = {
            **self._where(self._elector),
            "holder": event.holder or None,
            "transitions": event.transitions,
            "detail": event.detail or None,
        }
        match event.kind:
            case EventKind.RENEWED if not event.detail:
                log.debug("renewed", **fields)
            case EventKind.LOST:
                log.warning("lost", **fields)
            case EventKind.FOREIGN:
                log.error(
                    "this Lease belongs to another region",
                    **fields,
                    what_to_do="give each region its own --leader-election-name and --leader-election-namespace (its "
                    "own --lease-file where the Lease is a file); if "
                    "nodes with several labels are one region, set --region on all of them; if the Lease is right and "
                    "its annotation is not, delete the Lease",
                    meanwhile="this node goes on with the peers that it knows",
                )
            case kind:
                log.info(kind.value, **fields)

    def _where(self, elector: Elector) -> dict[str, str]:
        return {"region": self._owner.region, "lease": str(self._lock), "identity": elector.identity}

    def _failed(self, failure: str) -> None:
        self._known.set()
        if failure != self.failure:
            self.failure = failure
            assert self._elector is not None
            log.warning("the Lease can't be asked, trying again", **self._where(self._elector), error=failure)

    def _succeeded(self, elector: Elector) -> None:
        if elector.lease is not None:
            self._known.set()
        if self.failure:
            self.failure = ""
            log.info("the Lease can be asked again", **self._where(elector))

    def _note_age(self, lease: Lease | None, now: float) -> None:
        if lease is not None:
            self._renewed_at = now - max(lease.age_seconds or 0.0, 0.0)

    def _report(self, elector: Elector) -> None:
        state = "leader" if elector.leading else "candidate" if elector.lease is None else "follower"
        for one in _STATES:
            self._metrics.election_state.labels(one).set(one == state)
        if elector.lease is not None:
            self._metrics.election_transitions.set(elector.lease.record.leader_transitions)
