"""The hooks of the chart in a region of a thousand nodes: what they ask of the API server, and when they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from speil.cli import cleanup_wait, prepull_wait
from speil.cli.app import CommandError
from speil.kube import daemonset, in_cluster
from speil.kube.access import tls_context
from speil.testing.certificates import CertificateAuthority
from tests.shell.test_kube_api import FixedAccess
from tests.shell.tls_server import tls_server

NODES = 1000
POD_BYTES = 5000  # a DaemonSet's pod, as an API server of 1.36 sends it


class Region:
    """A DaemonSet whose pods get ready, `a_look` at each look at it; those of `down` never do.

    It is new, and from the look `old_from` on it was made years ago.
    """

    def __init__(self, a_look: int, down: int, old_from: int = 1 << 30) -> None:
        self.a_look, self.can, self.old_from = a_look, NODES - down, old_from
        self.ready = 0
        self.looks, self.pages = 0, 0
        self.page_bytes_max = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As the API server."""
        if request.path.endswith("/daemonsets/prepull"):
            self.looks += 1
            self.ready = min(self.can, self.ready + self.a_look)
            status = {"desiredNumberScheduled": NODES, "numberReady": self.ready, "observedGeneration": 1}
            made = datetime(2020, 1, 1, tzinfo=UTC) if self.looks >= self.old_from else datetime.now(UTC)
            metadata = {"generation": 1, "creationTimestamp": made.isoformat(timespec="seconds")}
            spec = {"selector": {"matchLabels": {"app": "prepull"}}}
            return web.json_response({"metadata": metadata, "spec": spec, "status": status})
        assert request.path == "/api/v1/namespaces/speil/pods"
        assert request.query["labelSelector"] == "app=prepull"
        start, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        pods = [self._pod(number) for number in range(start, min(NODES, start + limit))]
        more = {"continue": str(start + limit)} if start + limit < NODES else {}
        text = json.dumps({"metadata": more, "items": pods})
        self.pages += 1
        self.page_bytes_max = max(self.page_bytes_max, len(text))
        return web.Response(text=text, content_type="application/json")

    def _pod(self, number: int) -> dict[str, Any]:
        status = "True" if number < self.ready else "False"
        return {
            "metadata": {"name": f"prepull-{number}", "annotations": {"padding": "x" * POD_BYTES}},
            "spec": {"nodeName": f"node-{number:04}"},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks without pauses."""
    monkeypatch.setattr(daemonset, "PERIOD_SECONDS", 0.01)


@pytest.fixture
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Puts a Region in the place of the API server of the hook's pod."""
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:

        def put(region: Region) -> None:
            server.answer = region.answer
            access = FixedAccess(server.url, tls_context(authority.pem))
            monkeypatch.setattr(in_cluster, "InClusterAccess", lambda: access)

        yield put


async def test_an_upgrade_goes_on_when_all_nodes_have_the_image(serve: Any) -> None:
    region = Region(a_look=100, down=0)
    serve(region)
    settings = prepull_wait.Settings(daemonset="speil/prepull", timeout=60.0)
    assert await asyncio.to_thread(prepull_wait.run, settings) == 0
    assert region.ready == NODES
    assert region.looks == NODES // region.a_look
    assert region.page_bytes_max < 2 << 20, "a page at a time: the hook's container has 128 MiB"
    # at each look whose counts are new: the first pages, until enough nodes are found that have not got it
    assert region.pages <= region.looks * NODES // daemonset.PODS_A_PAGE


async def test_an_upgrade_goes_on_without_the_nodes_that_are_down_and_names_them(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    region = Region(a_look=500, down=3, old_from=10)
    serve(region)
    settings = prepull_wait.Settings(daemonset="speil/prepull", timeout=3600.0, since_creation=True)
    assert await asyncio.to_thread(prepull_wait.run, settings) == 0
    assert region.looks == 10
    assert region.pages <= 2 * NODES // daemonset.PODS_A_PAGE, "the same counts: nodes are not looked up again"
    (line,) = [one for one in caplog.records if one.message.startswith("nodes without the image")]
    assert line.fields["waiting"] == ["node-0997", "node-0998", "node-0999"]  # type: ignore[attr-defined]


async def test_a_cleanup_says_how_many_are_missing_and_names_some(serve: Any) -> None:
    region = Region(a_look=100, down=900, old_from=1)
    serve(region)
    settings = cleanup_wait.Settings(daemonset="speil/prepull", timeout=3600.0, since_creation=True)
    with pytest.raises(CommandError, match="100 of 1000 nodes cleaned up in 3600 s") as error:
        await asyncio.to_thread(cleanup_wait.run, settings)
    assert "node-0100, " in str(error.value)
    assert " and more. " in str(error.value)
    assert region.looks == 1, "the DaemonSet was made long ago: another pod has waited for it"
    assert len(str(error.value)) < 1000
