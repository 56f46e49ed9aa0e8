"""Peers that nobody here wrote: a program that speaks JSON lines, one answer a command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

ANSWER_SECONDS_MAX = 30


class PeerProgramError(Exception):
    """The program answered with an error."""


class PeerProgram:
    """A running peer; `id` and `address` are its multiaddr's parts."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.id = ""
        self.address = ""

    async def begin(self) -> None:
        """Read its first line: who it is."""
        first = await self._answer()
        self.id, self.address = first["id"], first["addrs"][0]

    async def ask(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Send a command; its answer. Raises PeerProgramError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"cmd": cmd, **arguments}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            line = await self._process.stdout.readline()
        if not line:
            raise PeerProgramError("the program ended")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise PeerProgramError(answer["error"])
        return answer


@asynccontextmanager
async def peer_program(*argv: str) -> AsyncIterator[PeerProgram]:
    """Start a program and read who it is; ended by its pid."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    program = PeerProgram(process)
    try:
        await program.begin()
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
