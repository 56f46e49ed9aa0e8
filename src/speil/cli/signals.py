"""How a command ends by a signal: as by Ctrl-C, so that it takes back what it made, and with the signal's exit code."""

from __future__ import annotations

import signal
from types import FrameType

_came: list[int] = []


def end_cleanly() -> None:
    """SIGTERM, and SIGHUP where it is not ignored (nohup), end a command as SIGINT does. Call it first.

    asyncio cancels the main task on SIGINT, and plain code gets a KeyboardInterrupt: `finally` and `with` do the rest.
    A node has handlers of its own.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def exit_code() -> int:
    """Of a command that was interrupted."""
    # An interrupt within exec(), which dataclasses use, is noted by the interpreter as nobody's, and it would end by
    # SIGINT after all. The next exec() forgets it.
    exec("")
    return 128 + (_came[0] if _came else signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
        signal.default_int_handler(signal.SIGINT, frame)
    else:
        signal.raise_signal(signal.SIGINT)
