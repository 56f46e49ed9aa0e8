"""The pulls of this node that are under way: owns the `Asker`, carries out what it decides, keeps its time.

Messages to umpires and sources are child tasks of `run`. What concerns containerd's request goes to the request
(`held`). Without a running `run`, or alone in the region, content goes upstream as it would without sharing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from speil.claims.action import Action, AskSource, AskUmpire, GoUpstream, Join, Leave, SendRelease, UseHolders
from speil.claims.asker import PULLS_MAX, Asker
from speil.claims.message import Alone, Reason, Status
from speil.claims.pull import Facts
from speil.claims.states import FETCHES, PullState
from speil.inflight.flight import Flight, key_of
from speil.inflight.held import HeldRequest, StepAside
from speil.inflight.series import InflightSeries
from speil.inflight.slots import Slots
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.routing.claim_network import ClaimNetwork, short
from speil.routing.network import NetworkError

STORED_MAX = 1_000  # content that came lately: its followers may still ask

log = get_log("sharing")


class Pulls:
    """Run it. `look` is called before a follower is answered: it reports what the runtime has of a flight now.

    `dismiss` ends the responses to the followers of content that this node does not download now.
    """

    def __init__(
        self,
        claims: ClaimNetwork,
        share_wait_seconds: float,
        series: InflightSeries,
        look: Callable[[Flight], None],
        dismiss: Callable[[Digest], None],
    ) -> None:
        self._claims, self._series, self._look, self._dismiss = claims, series, look, dismiss
        self._share_wait_seconds = share_wait_seconds
        self._asker = Asker(claims.local.peer_id, share_wait_seconds)
        self._flights: dict[bytes, Flight] = {}
        self._slots = Slots(self.state, self.offset)
        self._stored: OrderedDict[bytes, None] = OrderedDict()
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        claims.attach(self._status)

    async def run(self) -> None:
        """Send messages and keep the time, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            try:
                while True:
                    try:
                        await self._until_due()
                        self._tick()
                    except Exception as error:
                        self.failed(error)
            finally:
                self._group = None

    def _tick(self) -> None:
        for flight in self.flights:
            if flight.request and flight.request.feed:
                flight.request.feed.report()
        self._carry_out(self._asker.tick(_now()))
        self._clear_line()

    # --- requests ---------------------------------------------------------------------------------------

    @property
    def flights(self) -> list[Flight]:
        """The pulls under way."""
        return list(self._flights.values())

    def state(self, flight: Flight) -> PullState:
        """The state of a flight; ENDED for one that is over."""
        pull = self._asker.pull(flight.key)
        return pull.state if pull else PullState.ENDED

    def flight(self, digest: Digest) -> Flight | None:
        """The pull of this content."""
        return self._flights.get(key_of(digest))

    def offset(self, flight: Flight) -> int:
        """How many bytes this node has."""
        pull = self._asker.pull(flight.key)
        return pull.offset if pull else 0

    def is_spoiled(self, digest: Digest) -> bool:
        """Whether bytes of it did not match the digest lately: it is not shared in flight."""
        return self._asker.is_spoiled(key_of(digest), _now())

    def begin(
        self, content: Content, start: int, request: HeldRequest, facts: Facts, *, frees_slot: bool = False
    ) -> Flight | None:
        """containerd asks for content from byte `start` on. None: it goes upstream. Else call `close` at its end.

        frees_slot: see ContentRequest.
        """
        digest = content.digest
        assert digest is not None
        key, now = key_of(digest), _now()
        flight = self._flights.get(key)
        if flight is not None and not (flight.is_aside and not start):
            if flight.request is not None or self.state(flight) in FETCHES:
                return None
            if self.state(flight) is PullState.DELIVERED:  # the content was wrong, or got lost: not again from a source
                self.spoiled(digest)
            flight = None
        if key not in self._flights and len(self._flights) >= PULLS_MAX:  # the asker counts none that stepped aside
            self._series.shared_pulls.labels("alone", "limit").inc()
            return None
        closest = self._claims.closest(key) if self._group is not None else []
        if flight is None:
            flight = Flight(key, content, digest, now, now, total=facts.size_bytes, frees_slot=frees_slot)
            flight.times_aside = self._slots.asides(key, now)
        flight.request, flight.is_aside = request, False
        actions = self._asker.miss(key, closest, facts, now)
        if self._asker.pull(key) is None:
            self._flights.pop(key, None)
            why = "spoiled" if self._asker.is_spoiled(key, now) else "limit" if closest else "not_ready"
            self._series.shared_pulls.labels("alone", why).inc()
            return None
        self._asker.received(key, start, now)
        self._flights[key] = flight
        self._series.pulls_in_flight.set(len(self._flights))
        self._carry_out(actions)
        return flight

    def close(self, flight: Flight) -> None:
        """containerd's request has ended; where it was not served to its end, containerd has given up."""
        flight.request, flight.idle_since = None, _now()
        if flight.is_aside:
            return
        if self._flights.get(flight.key) is flight and self.state(flight) not in FETCHES | {PullState.DELIVERED}:
            self.cancelled(flight)

    # --- the source of a request -------------------------------------------------------------------------

    def accepted(self, flight: Flight, source: PeerInfo) -> None:
        """The head of a source's response came."""
        self._asker.accepted(flight.key, source.peer_id, _now())
        self._changed.set()  # its size is known now

    def received(self, flight: Flight, offset: int, at: float | None = None) -> None:
        """This node has the content up to `offset`, since `at`."""
        self._asker.received(flight.key, offset, _now() if at is None else at)

    def held_up(self, flight: Flight) -> None:
        """containerd takes none of the bytes that are there."""
        self._asker.held_up(flight.key, _now())

    def refused(self, flight: Flight, source: PeerId, reason: Reason, why: object) -> None:
        """A source, or the last of the holders, refused or broke off; `why` is for the log."""
        log.debug("a source can't serve", key=flight.digest, peer=source, error=why)
        self._carry_out(self._asker.refused(flight.key, source, reason, _now()))

    def delivered(self, flight: Flight, peer: PeerId | None, size: int) -> None:
        """containerd has the last byte: from `peer`, a source, or from complete holders (None)."""
        self._asker.delivered(flight.key)
        self._series.shared_pulls.labels("followed" if peer else "holders", "").inc()
        if peer is not None:
            seconds = round(_now() - (flight.follows_since or flight.started), 3)
            log.info("download followed to its end", key=flight.digest, peer=peer, bytes=size, seconds=seconds)

    # --- the runtime -------------------------------------------------------------------------------------

    def completed(self, key: bytes) -> None:
        """The content of a key is in the store."""
        self._slots.forget(key)
        if (flight := self._end(key)) is None:
            return
        self._asker.completed(key, _now())
        self._stored[key] = None
        if len(self._stored) > STORED_MAX:
            self._stored.popitem(last=False)
        if flight.request is not None:
            flight.request.give(GoUpstream(key, claimed=False))  # no request of a live containerd

    def cancelled(self, flight: Flight) -> None:
        """The download is gone."""
        self._over(flight, "cancelled", self._asker.cancelled(flight.key))

    def gone(self, digest: Digest) -> None:
        """The runtime has given the download up."""
        self._slots.forget(key_of(digest))
        if flight := self.flight(digest):
            self.cancelled(flight)

    def spoiled(self, digest: Digest) -> None:
        """Bytes did not match this digest, of a pull or of an older ingest."""
        key = key_of(digest)
        self._slots.forget(key)
        log.warning("a download has wrong bytes: for a while each node fetches this content by itself", key=digest)
        actions = self._asker.spoiled(key, _now())
        if flight := self._flights.get(key):
            self._over(flight, "spoiled", actions)

    def _over(self, flight: Flight, outcome: str, actions: list[Action]) -> None:
        if self._end(flight.key) is not flight:
            return
        self._series.shared_pulls.labels(outcome, "").inc()
        self._carry_out(actions)
        if flight.request is not None:
            flight.request.give(GoUpstream(flight.key, claimed=False))

    def _end(self, key: bytes) -> Flight | None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.ended = True
            flight.wake()
            self._series.pulls_in_flight.set(len(self._flights))
        return flight

    # --- carrying out ------------------------------------------------------------------------------------

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case AskUmpire():
                    self._start(self._ask(action))
                case AskSource():
                    self._start(self._ask_source(action))
                case SendRelease(key, umpire, release):
                    self._start(self._claims.release(umpire, key, release))
                case _:
                    if flight := self._flights.get(action.key):
                        self._order(flight, action)
        self._changed.set()

    def _order(self, flight: Flight, action: Join | Leave | GoUpstream | UseHolders) -> None:
        match action:
            case Leave(_, source, reason):
                flight.source = None
                self._series.left_sources.labels(reason.name.lower()).inc()
                said, here = reason.name.lower(), self.offset(flight)
                log.info("left a source", key=flight.digest, peer=source.peer_id, reason=said, at=here)
            case Join(_, source):
                flight.joined_at = _now()
                self._clear_line()
                if flight.is_aside:
                    return
                flight.source, flight.follows_since = source, flight.follows_since or flight.joined_at
                log.info("following a download", key=flight.digest, peer=source.peer_id, at=self.offset(flight))
            case GoUpstream(_, claimed):
                flight.source = None
                if claimed:
                    flight.granted_at = _now()
                    self._clear_line()
                why = "" if claimed else flight.why or "waited"
                self._series.shared_pulls.labels("fetched" if claimed else "alone", why).inc()
                said = "fetching from upstream for the region" if claimed else "fetching from upstream alone"
                at = self.offset(flight) or None
                log.info(said, key=flight.digest, image=flight.content.image, at=at, why=why or None)
            case UseHolders(_, peers):
                flight.source = peers[0]
        if flight.request is not None:
            flight.request.give(None if isinstance(action, Leave) else action)

    def _clear_line(self) -> None:
        now = _now()
        for at, flight in self._slots.due(self.flights):
            if at <= now:
                self._step_aside(flight)

    def _step_aside(self, flight: Flight) -> None:
        assert flight.request is not None
        self._slots.steps_aside(flight, _now())
        self._series.stepped_aside.inc()
        log.debug("a request steps aside", key=flight.digest)
        flight.source = None
        self._carry_out(self._asker.step_aside(flight.key))
        flight.wake()
        self._dismiss(flight.digest)
        flight.request.give(StepAside())

    def _start(self, message: Coroutine[Any, Any, None]) -> None:
        # each has the network's time limit; a pull has few under way: UMPIRES_ASKED_MAX umpires, and its source
        if self._group is None:
            message.close()  # the node stops
        else:
            self._group.create_task(self._guarded(message))

    async def _guarded(self, message: Coroutine[Any, Any, None]) -> None:
        try:
            await message
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """A bug of ours costs a copy from the upstream, and no pull: all that is shared begins anew."""
        log.exception("sharing in flight failed: content under way goes upstream", error)
        self._asker = Asker(self._claims.local.peer_id, self._share_wait_seconds)
        for flight in self.flights:
            try:
                self._over(flight, "failed", [])
            except Exception as other:  # the others still end, and the node goes on
                log.exception("content under way could not be ended", other, key=flight.digest)

    async def _ask(self, action: AskUmpire) -> None:
        key, umpire = action.key, action.umpire
        try:
            answer = await self._claims.ask(umpire, key, action.ask)
        except NetworkError as error:
            log.debug("an umpire does not answer", peer=umpire.peer_id, error=error)
            self._carry_out(self._asker.unanswered(key, umpire.peer_id, _now()))
            return
        log.debug("an umpire answered", key=short(key), peer=umpire.peer_id, answer=type(answer).__name__)
        if isinstance(answer, Alone) and (flight := self._flights.get(key)):
            flight.why = answer.why.name.lower()
        self._carry_out(self._asker.answered(key, umpire.peer_id, answer, _now()))

    async def _ask_source(self, action: AskSource) -> None:
        try:
            said = await self._claims.ask_status(action.source, action.key)
        except NetworkError as error:
            log.debug("a source does not answer", peer=action.source.peer_id, error=error)
            return
        self._carry_out(self._asker.source_said(action.key, action.source.peer_id, said, _now()))

    def _status(self, key: bytes) -> Status:
        """The answer to a follower; see ClaimNetwork.attach."""
        if (flight := self._flights.get(key)) and self.state(flight) in FETCHES:
            self._look(flight)
        return self._asker.status(key, is_stored=key in self._stored)

    async def _until_due(self) -> None:
        self._changed.clear()
        try:
            known = (self._asker.next_deadline(), *(at for at, _ in self._slots.due(self.flights)))
            async with asyncio.timeout_at(min((at for at in known if at is not None), default=None)):
                await self._changed.wait()
        except TimeoutError:
            pass


def _now() -> float:
    return asyncio.get_running_loop().time()
