"""One pull, what goes wrong before it or in its middle, and what that cost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from speil.store.base import StoreError
from speil.testing.eventually import eventually
from tests.system.faults.lab import FaultLab
from tests.system.faults.node import FaultNode
from tests.system.lab.processes import LabProcess
from tests.system.test_pulls import wanted

SLOW_LINK = "48mbit"  # so that a pull lasts long enough to be interrupted
MIDDLE_BYTES = 1_500_000  # have left a holder when it happens to it: three layers are on their way, none is whole
PULL_SECONDS_MAX = 120.0  # far above all that is asserted: it separates a pull that hangs from one that is slow
LINE_SECONDS_MAX = 10.0  # until a log says what happened
SAID_CHARS_MAX = 8000  # with a failure
_LONG = (
    (re.compile(r"^\d\d:\d\d:\d\d\.\d+ "), ""),
    (re.compile(r"sha256:([0-9a-f]{8})[0-9a-f]{56}"), r"sha256:\1…"),
    (re.compile(r"12D3Koo\w+(\w{6})"), r"12D3…\1"),
    (re.compile(r"/\S*/speil-faults-\w+/n\d"), "…"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What goes wrong; `before` the pull, or `during` it when a holder is sending layers."""

    name: str
    line: str  # a pattern: the line of the log, at INFO or above, that reports it
    before: Callable[[Trial], Awaitable[None]] | None = None
    during: Callable[[Trial], Awaitable[None]] | None = None
    holders: int = 1
    logged_by: str = "puller"  # whose log
    pulls_max: int = 1  # more than one only where the fault is containerd's own, or containerd finds it at the end
    counters_survive: bool = True  # of the puller; those of the holders are taken otherwise
    needs: tuple[str, ...] = ()  # see tests/requirements.py, beside what all need
    in_ci: tuple[str, ...] = ("containerd-2",)  # modes; `make faults` runs all with all

    @property
    def is_slow(self) -> bool:
        """Whether the holders' links are limited."""
        return self.during is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it cost."""

    case: Case
    seconds: float
    clean_seconds: float
    pulls: int
    upstream_bytes: int
    twice_bytes: int
    line: str

    @property
    def added_seconds(self) -> float:
        """Against a pull without a fault over the same links."""
        return self.seconds - self.clean_seconds


class Trial:
    """One pull of a new image. Cases act on the public attributes."""

    def __init__(self, lab: FaultLab, case: Case) -> None:
        self.lab, self.case = lab, case
        self.puller, self.holders = lab.puller, [lab.first, lab.second][: case.holders]
        self.serving = lab.first  # the holder that things happen to
        self.name, self.image = lab.push()
        self.digests = wanted(self.image)
        self.pulls = 0
        self.processes: list[LabProcess] = []  # ended with the trial
        self._said = {node.address: len(node.speil.log_text()) for node in lab.nodes}
        self._happened = asyncio.Event()

    @property
    def size_bytes(self) -> int:
        """What one pull takes."""
        return sum(len(data) for digest, data in self.image.blobs.items() if str(digest) in self.digests)

    async def run(self) -> Outcome:
        """Pull with the fault. Raises AssertionError where a pull fails that would have succeeded without speil."""
        case, lab = self.case, self.lab
        clean = lab.clean_seconds.get(case.is_slow, 0.0)
        try:
            if self.holders:
                await lab.give(self.name, len(self.digests) + 1, self.holders)
            for holder in self.holders:
                holder.limit_rate(SLOW_LINK if case.is_slow else "")
            if case.before:
                await case.before(self)
            lab.registry.forget()
            had = self._from_peers()
            started = time.monotonic()
            async with asyncio.timeout(PULL_SECONDS_MAX):
                await self._pull_with_fault()
            seconds = time.monotonic() - started
            assert self.digests <= self.puller.containerd.blobs()
            from_peers = int(self._from_peers() - had)
            upstream = lab.registry.bytes_sent(self.puller.address)
            twice = upstream + from_peers - self.size_bytes
            line = await eventually(self._line, timeout_seconds=LINE_SECONDS_MAX, what=f"the log says {case.line!r}")
            return Outcome(case, seconds, clean or seconds, self.pulls, upstream, twice, line)
        except BaseException as error:
            for node in (self.puller, self.serving):
                error.add_note(f"what {node.address} said:\n{self.said(node)[-SAID_CHARS_MAX:]}")
            raise
        finally:
            for process in self.processes:
                process.stop()

    def said(self, node: FaultNode) -> str:
        """What a node's speil has logged since the trial began."""
        return node.speil.log_text()[self._said[node.address] :]

    async def _pull_with_fault(self) -> None:
        before = [holder.sent_bytes for holder in self.holders]
        async with asyncio.TaskGroup() as group:
            pull = group.create_task(self._pull())

            def in_the_middle() -> bool:
                for holder, had in zip(self.holders, before, strict=True):
                    if holder.sent_bytes - had > MIDDLE_BYTES:
                        self.serving = holder
                        return True
                return pull.done()

            if self.case.during:
                await eventually(in_the_middle, timeout_seconds=PULL_SECONDS_MAX, what="a holder sends layers")
                assert not pull.done(), "the pull was over before anything could go wrong"
                await self.case.during(self)
            self._happened.set()

    async def _pull(self) -> None:
        while True:
            self.pulls += 1
            try:
                await self.puller.pull(self.name)
            except StoreError as error:
                print(f"pull {self.pulls} failed: {error}")
                if self.pulls >= self.case.pulls_max:
                    raise
                # the kubelet comes again after ten seconds: by then containerd is back, or has dropped what was wrong
                await self._happened.wait()
                if self.case.during is None:
                    await eventually(self._was_missed, timeout_seconds=30, what="the wrong content is missed")
            else:
                return

    def _was_missed(self) -> bool:
        return not self.puller.containerd.ingests() and "is not in the store" in self.said(self.puller)

    def _from_peers(self) -> float:
        if self.case.counters_survive:
            return self.puller.metric("speil_peer_bytes_total")
        return sum(holder.metric("speil_served_bytes_total", client="peer") for holder in self.holders)

    def _line(self) -> str:
        node = {"puller": self.puller, "holder": self.serving}[self.case.logged_by]
        for line in self.said(node).splitlines():
            if not re.match(r"\S+ (INFO|WARN|ERROR) ", line) or not re.search(self.case.line, line):
                continue
            return shortened(line)
        return ""


def shortened(line: str) -> str:
    """A line of a log without its time, and with short digests, peers and paths."""
    for pattern, short in _LONG:
        line = pattern.sub(short, line)
    return line
