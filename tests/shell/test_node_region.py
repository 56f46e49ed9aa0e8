"""A node's region from its settings and its labels, with an API that answers, and one that is away."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from speil.kube.access import Access, AccessSource, tls_context
from speil.kube.error import KubeAccessError
from speil.kube.node_labels import KeptLabels
from speil.kube.node_region import identify_node
from speil.observe import logs
from speil.region.identity import FROM_LABEL, FROM_SETTING, REGION_LABEL, ZONE_LABEL, RegionIdentity
from speil.region.settings import RegionSettings
from speil.setting import SettingError
from speil.testing.certificates import CertificateAuthority
from tests.shell.tls_server import tls_server

LABELS = {REGION_LABEL: "eu-west", ZONE_LABEL: "eu-west-1"}
FROM_NODE = RegionSettings(topology_from_node=True, node_name="n1")


class Fixed:
    """An access to one server, or none."""

    def __init__(self, access: Access | None) -> None:
        self._access = access

    async def current(self) -> Access:
        if self._access is None:
            raise KubeAccessError("no kubeconfig")
        return self._access

    def refused(self) -> None:
        pass


NO_ACCESS = Fixed(None)


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """The log so far, as JSON objects."""
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


async def identify(settings: RegionSettings, access: AccessSource, data_dir: Path | None = None) -> RegionIdentity:
    return await identify_node(settings, access, data_dir)


async def test_without_topology_from_node_the_api_is_not_asked(tmp_path: Path) -> None:
    region = await identify(RegionSettings(topology_region="eu-west"), NO_ACCESS, tmp_path)
    assert (region.region, region.region_source) == ("eu-west", FROM_LABEL)
    assert list(tmp_path.iterdir()) == []


async def test_labels_come_from_the_nodes_object_and_are_kept(tmp_path: Path) -> None:
    authority, asked = CertificateAuthority(), list[str]()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"metadata": {"labels": LABELS | {"other": "x"}}})

    (tmp_path / "tls").mkdir()
    async with tls_server(authority, tmp_path / "tls") as server:
        server.answer = answer
        access = Fixed(Access(server.url, tls_context(authority.pem)))
        region = await identify(FROM_NODE, access, tmp_path / "data")
    assert asked == ["/api/v1/nodes/n1"]
    assert (region.region, region.zone, region.label) == ("eu-west", "eu-west-1", "eu-west")
    assert KeptLabels(tmp_path / "data").load("n1") == LABELS
    again = await identify(FROM_NODE, NO_ACCESS, tmp_path / "data")
    assert again == region, "the API is away, the labels of the last start count"


async def test_without_labels_a_region_that_is_set_is_enough(lines: Callable[[], list[dict[str, Any]]]) -> None:
    settings = RegionSettings(region="us", topology_from_node=True, node_name="n1")
    region = await identify(settings, NO_ACCESS)
    assert (region.region, region.region_source, region.zone) == ("us", FROM_SETTING, "")
    (line,) = lines()
    assert line["msg"] == "node labels can't be read"
    assert (line["node"], line["error"]) == ("n1", "no kubeconfig")


async def test_without_labels_and_region_the_node_does_not_start() -> None:
    with pytest.raises(SettingError, match="--topology-from-node: the labels of node n1 can't be read: no kubeconfig"):
        await identify(FROM_NODE, NO_ACCESS)
