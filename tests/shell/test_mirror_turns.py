"""Turns of bodies and uploads: one that fails or is cancelled costs nobody else theirs."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from speil.mirror.series import MirrorSeries
from speil.mirror.settings import MirrorSettings
from speil.mirror.uploads import Uploads
from speil.observe.metrics import Metrics
from speil.testing.eventually import eventually
from speil.wire import turns as wire_module
from speil.wire.pump import Pump, Wait
from speil.wire.sendfile import SendFile
from speil.wire.turns import Wire
from speil.wire.turnstile import Turnstile

RATE = 8 << 20  # 16 uploads


async def whole(pump: Pump) -> None:
    while True:
        await pump.piece()


class Uploader:
    """Asks for turn after turn."""

    def __init__(self, tasks: asyncio.TaskGroup, uploads: Uploads, peer: str) -> None:
        self.turns = 0
        self._uploads, self._peer = uploads, peer
        self.task = tasks.create_task(self._run())

    async def _run(self) -> None:
        with self._uploads.admit(self._peer) as refusal:
            assert refusal is None
            while True:
                await self._uploads.turn(self._peer, RATE)
                self.turns += 1


async def watched() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def test_uploads_that_end_together_are_cancelled_and_nothing_else() -> None:
    told = await watched()
    uploads = Uploads(MirrorSettings(upload_limit=RATE), Metrics().of(MirrorSeries))
    async with asyncio.TaskGroup() as tasks:
        waiting = [Uploader(tasks, uploads, str(number)) for number in range(5)]
        await eventually(lambda: all(one.turns for one in waiting), what="each has a turn")
        for one in waiting:
            one.task.cancel()
    assert all(one.task.cancelled() for one in waiting)
    assert not told
    assert not uploads._turns


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_is_cancelled_while_turns_are_given_out_costs_the_others_none(seed: int) -> None:
    """The timer may fire between a cancellation and the moment when it reaches the task."""
    told, rng = await watched(), Random(seed)
    uploads = Uploads(MirrorSettings(upload_limit=RATE), Metrics().of(MirrorSeries))
    async with asyncio.TaskGroup() as tasks:
        lasting = Uploader(tasks, uploads, "lasting")
        for _ in range(20):
            passing = [Uploader(tasks, uploads, f"passing{number}") for number in range(rng.randrange(1, 4))]
            await eventually(lambda: len(uploads._turns) >= 2, what="several wait")
            for one in passing:
                one.task.cancel()
            assert uploads._pace is not None
            uploads._pace.give_back(rng.choice((0, RATE)))  # so that whoever is first in line is granted one now
            uploads._grant()
            before = lasting.turns
            await eventually(lambda before=before: lasting.turns > before, what="the one that stays goes on")  # type: ignore[misc]
        lasting.task.cancel()
    assert not told
    assert not uploads._turns


async def test_a_turn_that_raises_is_alone_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told, wire, ran = await watched(), Wire(), list[int]()

    def turn(number: int) -> Callable[[], None]:
        def run() -> None:
            if number % 3 == 0:
                raise OSError(errno.ENOSPC, "epoll_ctl")
            ran.append(number)

        return run

    monkeypatch.setattr(wire_module, "ROUND_SECONDS_MAX", -1)
    for number in range(12):
        wire.ready(turn(number))
    assert wire.waiting_count == 12
    monkeypatch.undo()
    await eventually(lambda: not wire.waiting_count, what="the line is empty")
    wire.ready(turn(13))
    await eventually(lambda: 13 in ran, what="and the next turn is taken")
    assert ran == [number for number in range(14) if number % 3]
    assert not told


async def test_a_loop_that_can_watch_no_more_descriptors_fails_that_body_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, loop, wire = await watched(), asyncio.get_running_loop(), Wire()
    path = tmp_path / "blob"
    with path.open("wb") as blob:
        blob.truncate(64 << 20)
    content = os.open(path, os.O_RDONLY)
    near, far = socket.socketpair()
    near.setblocking(False)

    class End:
        fd = near.fileno()
        is_gone = has_ended = False

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left for watches")

    pump: Pump = SendFile(wire, End(), content, 0, 64 << 20)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(loop, "add_writer", full)
            with pytest.raises(OSError, match="no space"):
                await asyncio.wait_for(whole(pump), 20)
        assert pump._waits_for is Wait.NOTHING
        assert not told
    finally:
        os.close(content)
        near.close()
        far.close()


async def test_those_who_wait_take_turns_by_share() -> None:
    turnstile, begun = Turnstile(1), list[str]()

    async def request(share: str) -> None:
        await turnstile.enter(share)
        begun.append(share)

    async with asyncio.TaskGroup() as group:
        for share in ("many",) * 20 + ("few",) * 2 + ("one",):
            group.create_task(request(share))
    assert begun[1:6] == ["many", "few", "one", "many", "few"]
    assert not turnstile.has_line
