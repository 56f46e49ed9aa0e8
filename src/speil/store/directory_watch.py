"""Watches directories for files that come, grow and go (inotify), or reports that it can't: then they are polled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.store import inotify
from speil.store.inotify import Inotify

_WHERE = inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.ONLY_DIRECTORY

log = get_log("ingests")


class DirectoryWatch:
    """All watches of one reader. Open it in a running event loop; a watch is a number, None where there is none."""

    def __init__(self) -> None:
        self._notify: Inotify | None = None
        self._odd = Seldom()

    def open(self, ready: Callable[[], None]) -> None:
        """Call `ready` from the event loop when `changed` has something."""
        try:
            self._notify = Inotify()
        except OSError as error:
            log.warning(
                "inotify is not available: ingests are polled; raise fs.inotify.max_user_instances", error=error
            )
        else:
            asyncio.get_running_loop().add_reader(self._notify.fd, ready)

    def add(self, path: str, *, growth: bool = False) -> int | None:
        """Watch a directory; `growth`: writes to its files too. For a directory that is watched this is changed."""
        if self._notify is None:
            return None
        try:
            return self._notify.add(path, _WHERE | (inotify.MODIFY if growth else 0))
        except OSError as error:
            if self._odd.due("watches"):
                log.warning("ingests can't be watched and are polled: raise fs.inotify.max_user_watches", error=error)
            return None

    def remove(self, watch: int | None) -> None:
        """End a watch."""
        if self._notify is not None and watch is not None:
            self._notify.remove(watch)

    def changed(self) -> dict[int, bool] | None:
        """The watches that report a change, and whether the directory is still there; None where notices were lost."""
        found: dict[int, bool] = {}
        for notice in self._notify.read() if self._notify else ():
            if notice.mask & inotify.OVERFLOW:
                return None
            found[notice.watch] = not notice.mask & inotify.IGNORED
        return found

    def close(self) -> None:
        """End all watches."""
        if self._notify is not None:
            asyncio.get_running_loop().remove_reader(self._notify.fd)
            self._notify.close()
            self._notify = None
