"""One simultaneous pull of a new image, what goes wrong before it or in its middle, and what that cost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from speil.oci.digest import Digest
from speil.store.base import StoreError
from speil.testing.eventually import eventually
from tests.system.faults.at_once.lab import (
    BYTES_PER_SECOND,
    SLOW_BYTES_PER_SECOND,
    SharingLab,
    SharingNode,
    largest_of,
)
from tests.system.faults.trial import LINE_SECONDS_MAX, PULL_SECONDS_MAX, SAID_CHARS_MAX, shortened
from tests.system.test_pulls import wanted

MIDDLE_BYTES = 1 << 20  # of the largest layer have left the upstream, and every other node follows
MULTIPART_COPIES = 2.0
GONE_SECONDS_MAX = 60.0  # until containerd has dropped wrong content
_FOLLOWS = re.compile(r"following a download  component=sharing key=(\S+) peer=(\S+)")
_FETCHES = re.compile(r"fetching from upstream (?:for the region|alone)  component=sharing key=(\S+)")


@dataclass(frozen=True, slots=True)
class Case:
    """What goes wrong; `before` the pulls, or `during` them, when all nodes but one follow the largest layer."""

    name: str
    line: str  # a pattern: the line of a node's log, at INFO or above, that reports it
    before: Callable[[Trial], Awaitable[None]] | None = None
    during: Callable[[Trial], Awaitable[None]] | None = None
    umpire: int | None = None  # the node that decides about the largest layer; it does not pull
    pullers: int = 4
    copies_max: float = 1.02  # of the image
    takeovers_max: int | None = 1  # nodes that fetch the largest layer beside the first one; None: not counted
    added_max: float = 4.0  # seconds
    pulls_max: int = 1  # of one node
    needs: tuple[str, ...] = ()
    in_ci: tuple[str, ...] = ()  # modes; `make faults` runs all with all


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it cost. `seconds`: of the slowest node that the fault did not hit itself."""

    case: Case
    seconds: float
    added_seconds: float
    copies: float
    takeovers: int
    pulls: int
    line: str
    notes: tuple[str, ...]

    def faults(self, *, multipart: bool) -> list[str]:
        """The bounds that were exceeded, apart from time, which a busy machine adds to.

        multipart: containerd asks the upstream for parts, for more than it takes.
        """
        case, found = self.case, []
        if self.copies > case.copies_max * (MULTIPART_COPIES if multipart else 1):
            found.append(f"{self.copies:.2f} copies, at most {case.copies_max}")
        if case.takeovers_max is not None and self.takeovers > case.takeovers_max:
            found.append(f"{self.takeovers} nodes took over, at most {case.takeovers_max}")
        return found


class Trial:
    """Cases act on the public attributes."""

    def __init__(self, lab: SharingLab, case: Case) -> None:
        self.lab, self.case, self.upstream = lab, case, lab.upstream
        self.umpire = None if case.umpire is None else lab.nodes[case.umpire]
        self.name, self.image = lab.new_image(self.umpire)
        self.layer = largest_of(self.image)
        idle = [] if self.umpire is None else [self.umpire]
        self.nodes = [node for node in lab.nodes if node not in idle][: case.pullers]
        self.digests = wanted(self.image)
        self.stack = AsyncExitStack()  # closed with the trial
        self.group: asyncio.TaskGroup  # what goes on beside the pulls
        self.pulls: dict[SharingNode, asyncio.Task[None]] = {}
        self.tries = dict.fromkeys(self.nodes, 0)
        self.ended: dict[SharingNode, float] = {}
        self.hit: set[SharingNode] = set()  # not counted; it has the image once the fault is over
        self.lost: set[SharingNode] = set()  # its pull would fail without speil, too
        self.failed: set[SharingNode] = set()
        self.unready: set[SharingNode] = set()  # a pull that failed is not repeated yet
        self.counted_seconds = 0.0  # from the fault on, or from the start
        self.waits_for_collection = False  # a pull that failed is repeated once containerd has dropped the wrong bytes
        self.notes: list[str] = []
        self._said = {node: len(node.speil.log_text()) for node in lab.nodes}

    async def run(self) -> Outcome:
        """Raises AssertionError where a pull fails that would have succeeded without speil."""
        try:
            async with self.lab.serving(), self.stack:
                return await self._run()
        except BaseException as error:
            for node in self.lab.nodes:
                error.add_note(f"what {node.address} said:\n{self.said(node)[-SAID_CHARS_MAX:]}")
            raise

    async def _run(self) -> Outcome:
        case, upstream = self.case, self.upstream
        first: SharingNode | None = None
        async with asyncio.timeout(PULL_SECONDS_MAX), asyncio.TaskGroup() as self.group:
            if case.before:
                await case.before(self)
            upstream.forget()
            upstream.bytes_per_second = SLOW_BYTES_PER_SECOND if case.during else BYTES_PER_SECOND
            started = middle = time.monotonic()
            for node in self.nodes:
                self.pulls[node] = self.group.create_task(self._pull(node))
            if case.during:
                await eventually(self._in_the_middle, timeout_seconds=PULL_SECONDS_MAX, what="the layer is followed")
                first, middle = self.fetcher, time.monotonic()
                upstream.bytes_per_second = BYTES_PER_SECOND
                await case.during(self)
            counted = [node for node in self.nodes if node not in self.hit | self.lost]
            await asyncio.gather(*(self.pulls[node] for node in counted))
            last = max(self.ended[node] for node in counted)
            sent = self._sent()
            line = await eventually(self._line, timeout_seconds=LINE_SECONDS_MAX, what=f"a log says {case.line!r}")
            self.lab.calm()
            for node in self.lost:
                self.pulls[node].cancel()
        for node in self.nodes:
            assert node in self.lost or self.digests <= node.containerd.blobs()
        self.counted_seconds = last - middle
        clean = self.lab.clean_seconds.get(case.during is not None, last - middle)
        taken = {client for client, size in upstream.sent_of(self.layer).items() if size}
        takeovers = len(taken - {first.address} if first else taken) - (0 if first else 1)
        copies = sent / sum(len(data) for digest, data in self.image.blobs.items() if self._is_blob(digest))
        tries = max(count for node, count in self.tries.items() if node not in self.lost)
        return Outcome(
            case, last - started, last - middle - clean, copies, max(takeovers, 0), tries, line, tuple(self.notes)
        )

    # --- who does what ----------------------------------------------------------------------------------

    def said(self, node: SharingNode) -> str:
        """What a node's speil has logged since the trial began."""
        return node.speil.log_text()[self._said[node] :]

    @property
    def fetcher(self) -> SharingNode:
        """The node to which the upstream has sent most of the largest layer."""
        sent = self.upstream.sent_of(self.layer)
        return max(self.nodes, key=lambda node: sent.get(node.address, 0))

    @property
    def followers(self) -> list[SharingNode]:
        """The others."""
        return [node for node in self.nodes if node is not self.fetcher]

    def source_of(self, node: SharingNode) -> str:
        """The peer that it follows now, by its log; "" for none."""
        found = [peer for key, peer in _FOLLOWS.findall(self.said(node)) if key == str(self.layer)]
        return found[-1] if found else ""

    @property
    def in_mid_tree(self) -> SharingNode:
        """A follower that another one follows."""
        sources = {self.source_of(node) for node in self.followers}
        return next(node for node in self.followers if str(node.peer) in sources)

    @property
    def below(self) -> SharingNode:
        """The node that follows a follower."""
        peer = str(self.in_mid_tree.peer)
        return next(node for node in self.followers if self.source_of(node) == peer)

    def _in_the_middle(self) -> bool:
        assert not any(pull.done() for pull in self.pulls.values()), "a pull was over before anything could go wrong"
        fetcher = self.fetcher
        if self.upstream.sent_of(self.layer).get(fetcher.address, 0) < MIDDLE_BYTES:
            return False
        return all(self.source_of(node) for node in self.nodes if node is not fetcher)

    def _is_blob(self, digest: Digest) -> bool:
        return str(digest) in self.digests and self.image.kind(digest) == "blobs"

    def _sent(self) -> int:
        return sum(size for (_, digest), size in self.upstream.sent.items() if self._is_blob(digest))

    # --- one node ---------------------------------------------------------------------------------------

    async def _pull(self, node: SharingNode) -> None:
        while True:
            self.tries[node] += 1
            try:
                await node.pull(self.name)
            except StoreError as error:
                self.notes.append(f"{node.address}: {error}")
                self.failed.add(node)
                if node in self.lost:
                    return
                if self.tries[node] >= self.case.pulls_max:
                    raise AssertionError(f"the pull of {node.address} failed: {error}") from error
                await eventually(
                    lambda: self._can_pull(node),
                    timeout_seconds=GONE_SECONDS_MAX,
                    what="containerd is back, and has dropped what was wrong",
                )
            else:
                self.ended[node] = time.monotonic()
                return

    def _can_pull(self, node: SharingNode) -> bool:
        is_right = not self.upstream.corrupt and not (self.waits_for_collection and self.layer.hex in node.ingested)
        return is_right and node.containerd.process.running and node not in self.unready

    def _line(self) -> str:
        for node in self.lab.nodes:
            for line in self.said(node).splitlines():
                if re.match(r"\S+ (INFO|WARN|ERROR) ", line) and re.search(self.case.line, line):
                    return shortened(line)
        return ""
