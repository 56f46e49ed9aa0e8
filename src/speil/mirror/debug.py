"""The metrics port: `/metrics`, the node's state as JSON, and a page to look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import escape
from typing import Any

from aiohttp import web

from speil.observe.metrics import CONTENT_TYPE, Metrics
from speil.setting import ListenAddress

State = Callable[[], dict[str, Any]]


class DebugServer:
    """Serves `metrics` and what `state` says."""

    def __init__(self, metrics: Metrics, state: State, *, web_enabled: bool) -> None:
        self._metrics, self._state, self._web_enabled = metrics, state, web_enabled

    @asynccontextmanager
    async def serve(self, address: ListenAddress) -> AsyncIterator[None]:
        """Listen on `address`. Raises OSError."""
        app = web.Application()
        app.router.add_get("/metrics", self._answer_metrics)
        app.router.add_get("/debug/state", self._answer_state)
        if self._web_enabled:
            app.router.add_get("/debug/web/", self._answer_page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, address.host or None, address.port).start()
            yield
        finally:
            await runner.cleanup()

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _answer_state(self, request: web.Request) -> web.Response:
        return web.json_response(self._state())

    async def _answer_page(self, request: web.Request) -> web.Response:
        return web.Response(text=_page(self._state()), content_type="text/html")


def _page(state: dict[str, Any]) -> str:
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in state.items()
        if not isinstance(value, list)
    )
    tables = "".join(_table(name, rows) for name, rows in state.items() if isinstance(rows, list))
    style = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}th,td{text-align:left;padding:2px 1em}"
    return f"<!doctype html><title>speil</title><style>{style}</style><h1>speil</h1><table>{facts}</table>{tables}"


def _table(name: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"<h2>{escape(name)}</h2><p>none</p>"
    head = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<h2>{escape(name)}</h2><table><tr>{head}</tr>{body}</table>"
