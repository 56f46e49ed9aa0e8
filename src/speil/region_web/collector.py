"""Reads all regions again and again, and keeps the sections of the page as JSON.

Regions are read every few seconds while a page is open, and once in half a minute otherwise, for the last hour's
figures. A look that takes long is not begun again before three times as long: the nodes and the API server are not
kept busy by a page.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from speil.observe.logs import get_log
from speil.overview.flows import Peers
from speil.overview.history import History
from speil.overview.verify import verify
from speil.overview.view import NodeView, RegionView
from speil.region_web import document
from speil.survey.error import SurveyError
from speil.survey.look import Look

UNWATCHED_SECONDS = 30.0  # between two looks while no page is open
PAUSE_FACTOR = 2.0  # of the time that a look took
CURSOR_SECONDS = 0.5  # how soon a page gets what a look found
OBSERVE_SECONDS_MAX = 60.0
PLACES_MAX = 20_000  # nodes whose region is remembered

log = get_log("region-web")


class VerifyRunningError(Exception):
    """A verification is running already."""


class Collector:
    """A Feed of the page. `run` it."""

    def __init__(self, look: Look, interval_seconds: float) -> None:
        self._look, self._interval_seconds = look, interval_seconds
        self._history = History()
        self._sections: dict[str, str] = {}
        self._keys: dict[str, str] = {}  # the event's name of each section
        self._places: dict[str, tuple[str, str]] = {}  # region and zone of each node by its name
        self._watched = asyncio.Event()
        self._pages = 0
        self._verified: dict[str, Any] = {"is_running": False, "at": None, "findings": [], "error": ""}
        self._put("verify", "verify", self._verified)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            started = time.monotonic()
            try:
                self.show(await self._look(), time.monotonic() - started)
            except SurveyError as error:
                self._summary({"error": str(error)})
            took = time.monotonic() - started
            pause = max(self._interval_seconds, PAUSE_FACTOR * took)
            try:
                async with asyncio.timeout(UNWATCHED_SECONDS if not self._pages else pause):
                    self._watched.clear()
                    await self._watched.wait()
            except TimeoutError:
                continue

    def show(self, views: Sequence[RegionView], look_seconds: float) -> None:
        """Take a view of all regions."""
        now = time.time()
        views = self._placed(views)
        peers = Peers(views)
        self._history.add(views, now)
        for view in views:
            self._put(f"region/{view.region}", "region", document.region(view, peers, self._history, now))
            self._put(f"steps/{view.region}", "steps", document.steps(view.region, self._history, now))
        self._put("border", "border", document.border(views, peers))
        self._put("rollouts", "rollouts", document.rollout_trees(views, peers))
        self._put("kept_out", "kept_out", document.kept_out_rows(views))
        names = [view.region for view in views]
        for gone in [key for key in self._sections if "/" in key and key.partition("/")[2] not in names]:
            del self._sections[gone], self._keys[gone]
        count = sum(len(view.nodes) for view in views)
        seconds = round(look_seconds, 3)
        self._summary({"regions": names, "nodes": count, "at": now, "look_seconds": seconds, "error": ""})

    def _placed(self, views: Sequence[RegionView]) -> list[RegionView]:
        """The views with nodes that can't be read in the region and zone where they were read last."""
        self._places |= {node.name: (view.region, node.zone) for view in views for node in view.nodes if not node.error}
        while len(self._places) > PLACES_MAX:
            del self._places[next(iter(self._places))]
        unread: dict[str, list[NodeView]] = {}
        for node in (node for view in views for node in view.nodes if node.error):
            region, zone = self._places.get(node.name, ("?", ""))
            unread.setdefault(region, []).append(replace(node, region=region, zone=zone))
        placed = []
        for view in views:
            nodes = [node for node in view.nodes if not node.error] + unread.pop(view.region, [])
            if nodes or view.leases or view.pending:
                placed.append(replace(view, nodes=tuple(sorted(nodes, key=lambda node: node.name))))
        return placed + [RegionView(region, (), tuple(nodes)) for region, nodes in unread.items()]

    async def verify(self, observe_seconds: float) -> dict[str, Any]:
        """Run the checks of `speil region verify`; the result stays. Raises VerifyRunningError, SurveyError."""
        if self._verified["is_running"]:
            raise VerifyRunningError
        self._verified |= {"is_running": True, "error": ""}
        self._put("verify", "verify", self._verified)
        try:
            before = await self._look()
            await asyncio.sleep(min(observe_seconds, OBSERVE_SECONDS_MAX))
            found = document.findings(verify(before, await self._look(), observe_seconds))
            self._verified |= {"at": time.time(), "findings": found}
        except SurveyError as error:
            self._verified["error"] = str(error)
            raise
        finally:
            self._verified["is_running"] = False
            self._put("verify", "verify", self._verified)
        return self._verified

    @asynccontextmanager
    async def open(self) -> AsyncIterator[CollectorCursor]:
        """See Feed."""
        self._pages += 1
        self._watched.set()
        try:
            yield CollectorCursor(self._sections, self._keys)
        finally:
            self._pages -= 1

    def _summary(self, changes: dict[str, Any]) -> None:
        before = json.loads(self._sections.get("summary", "{}"))
        if changes["error"] and changes["error"] != before.get("error"):
            log.warning("regions can't be read", error=changes["error"])
        empty = {"regions": [], "nodes": 0, "at": None, "look_seconds": None}
        self._put("summary", "summary", {**empty, **before, **changes, "now": time.time()})

    def _put(self, key: str, name: str, found: dict[str, Any]) -> None:
        self._sections[key], self._keys[key] = json.dumps(found), name


class CollectorCursor:
    """See Cursor."""

    wait_seconds = CURSOR_SECONDS

    def __init__(self, sections: dict[str, str], keys: dict[str, str]) -> None:
        self._sections, self._keys = sections, keys
        self._sent: dict[str, str] = {}

    def changes(self) -> list[tuple[str, str]]:
        """See Cursor."""
        found = []
        for key, text in self._sections.items():
            if self._sent.get(key) != text:
                self._sent[key] = text
                found.append((self._keys[key], text))
        for gone in self._sent.keys() - self._sections.keys():
            del self._sent[gone]
        return found
