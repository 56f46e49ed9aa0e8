"""Ends a command on SIGTERM and SIGHUP as on Ctrl-C: it cleans up, and exits with 128 plus the signal's number."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_came: list[int] = []


def end_cleanly() -> None:
    """Make SIGTERM, and SIGHUP where it is not ignored (nohup), end the command as SIGINT does. Call it first.

    On SIGINT asyncio cancels the main task, and other code gets a KeyboardInterrupt: `finally` and `with` clean up.
    A node has its own handlers.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def ignore_more() -> None:
    """A further signal changes nothing: the command has cleaned up and ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def exit_code() -> int:
    """The exit code of a command that a signal ended."""
    # After a KeyboardInterrupt within exec(), which dataclasses use, the interpreter ends itself by SIGINT. One more
    # exec() resets that.
    exec("")
    return 128 + (_came[0] if _came else signal.SIGINT)


def leave(code: int) -> NoReturn:
    """End the process now. Everything that needs cleaning up has been cleaned up."""
    for stream in (sys.stdout, sys.stderr):
        # it may be closed, or its reader may have gone
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
        signal.default_int_handler(signal.SIGINT, frame)
    else:
        signal.raise_signal(signal.SIGINT)
