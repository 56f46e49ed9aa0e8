"""One line for the stage that runs: drawn again and again on a terminal, printed now and then elsewhere.

It goes to stderr, so that stdout has the result alone. A thread redraws the bar, because the work may wait for a
process or a peer meanwhile. A bar that can't be written any more is not drawn; the work goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from speil.progress.terminal import CYAN, can_redraw, cells, coloured, columns, fitted, shown

REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0  # between two lines about one stage, where lines are printed: a log of CI stays short
LINE_CELLS_MAX = 300  # of such a line: a note may be another program's text
BAR_CELLS_MAX = 24
_STEP_SECONDS = 1.0  # of `wait`


class Progress:
    """Use it as a context: at the end of the block the bar is gone. Its methods may be called in any thread."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        lines: bool = True,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`stream` None is stderr. `quiet`: nothing is shown, and `line` prints nothing.

        `lines`: where there is no terminal, print a line for each stage. Work that calls `line` needs none.
        """
        self._stream = sys.stderr if stream is None else stream
        self._environ, self._is_quiet = environ, quiet
        self._draws = not quiet and can_redraw(self._stream, environ)
        self._prints = lines and not quiet and not self._draws and self._stream is not None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._label, self._note, self._unit = "", "", ""
        self._done, self._total = 0.0, 0.0
        self._began = self._printed = time.monotonic()
        self._drawn, self._drawn_cells = "", 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with self._lock:
            self._clear()
            self._draws = False

    def stage(self, label: str, total: float = 0, unit: str = "") -> None:
        """The next part of the work begins. `total` 0: how long it takes is not known, so the elapsed time is shown."""
        with self._lock:
            self._label, self._note, self._unit, self._done, self._total = label, "", unit, 0.0, total
            self._began = self._printed = time.monotonic()
            if self._draws:
                self._draw()
                self._start()
            elif self._prints:
                self._write(f"{fitted(label, LINE_CELLS_MAX)}\n")

    def advance(self, count: float = 1, note: str | None = None) -> None:
        """`count` more of the stage's total is done. `note` is shown behind it, until another one is given."""
        with self._lock:
            self._done += count
            self._note = self._note if note is None else note
            if not self._prints or time.monotonic() < self._printed + LINE_SECONDS:
                return
            self._printed = time.monotonic()
            self._write(f"{fitted(self._text(), LINE_CELLS_MAX)}\n")

    def note(self, text: str) -> None:
        """Show `text` behind the bar. Where lines are printed, it is part of the next one."""
        self.advance(0, text)

    def clear(self) -> None:
        """The stage has ended: nothing is shown until the next one."""
        with self._lock:
            self._clear()
            self._label = ""

    def line(self, text: str, stream: TextIO | None = None) -> None:
        """Print a line that stays, above the bar, on `stream` (None: stdout)."""
        if self._is_quiet:
            return
        target = sys.stdout if stream is None else stream
        with self._lock:
            self._clear()
            print(shown(text, target), file=target, flush=True)
            if self._draws and self._label:
                self._draw()

    async def wait(self, label: str, seconds: float) -> None:
        """A stage that is to wait for a time."""
        self.stage(label, seconds, "s")
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, REDRAW_SECONDS if self._draws else _STEP_SECONDS))
            self.advance(max(seconds - max(ends - time.monotonic(), 0) - self._done, 0))

    # --- drawing; with the lock held ------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._redraw, name="progress", daemon=True)
            self._thread.start()

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAW_SECONDS):
            with self._lock:
                if self._draws and self._label:
                    self._draw()

    def _text(self) -> str:
        note = f"  {self._note}" if self._note else ""
        if not self._total:
            return f"{self._label}: {time.monotonic() - self._began:.0f} s{note}"
        unit = f" {self._unit}" if self._unit else ""
        return f"{self._label}: {min(self._done, self._total):.0f} of {self._total:.0f}{unit}{note}"

    def _draw(self) -> None:
        assert self._stream is not None
        width = columns(self._stream) - 1  # a character in the last column would begin the next line
        text, bar = self._text(), ""
        if self._total and (room := min(BAR_CELLS_MAX, width // 3)) >= 3:
            filled = round(room * min(self._done / self._total, 1.0))
            full, empty = ("█", "░") if shown("█░", self._stream) == "█░" else ("#", ".")
            done = coloured(full * filled, CYAN, self._stream, self._environ) if filled else ""
            bar = f"{done}{empty * (room - filled)} "
            width -= room + 1
        fitting = fitted(shown(text, self._stream), max(width, 0))
        if (drawn := f"{bar}{fitting}") == self._drawn:
            return
        above = self._lines_above()
        self._drawn, self._drawn_cells = drawn, (room + 1 if bar else 0) + cells(fitting)
        self._write(f"{above}\r\x1b[J{drawn}")

    def _lines_above(self) -> str:
        """Go up to where the bar began: a terminal that was made narrower has wrapped it."""
        assert self._stream is not None
        lines = max(self._drawn_cells - 1, 0) // columns(self._stream)
        return f"\x1b[{lines}A" if lines else ""

    def _clear(self) -> None:
        if self._draws and self._drawn_cells:
            self._write(f"{self._lines_above()}\r\x1b[J")
            self._drawn, self._drawn_cells = "", 0

    def _write(self, text: str) -> None:
        assert self._stream is not None
        try:
            self._stream.write(shown(text, self._stream))
            self._stream.flush()
        except (OSError, ValueError):  # the reader has gone, the terminal was closed
            self._draws = self._prints = False
