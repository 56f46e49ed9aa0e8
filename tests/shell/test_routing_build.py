"""Routing's parts, built from settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from speil.border.record import BorderRecord
from speil.libp2p.host import Host
from speil.libp2p.transport import OpenGate
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.metrics import Metrics
from speil.region.policy import Policy, protocols_of
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.build import build_host, build_router
from speil.routing.settings import RouterSettings
from speil.setting import ListenAddress, SettingError
from speil.testing.eventually import eventually
from tests.shell.mesh import new_host

SETTINGS = RouterSettings(router_addr=ListenAddress("127.0.0.1", 0))


def host_of(settings: RouterSettings) -> Host:
    return build_host(settings, protocols_of("r", "z"), (), OpenGate(), tuple, Metrics())


async def test_a_host_advertises_the_region_and_keeps_its_key(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data_dir=tmp_path)
    async with host_of(settings) as host, new_host() as other:
        first = host.local.peer_id
        connection = await other.connect(host.local)
        assert set(protocols_of("r", "z")) <= connection.peer.protocols
        assert connection.peer.agent_version.startswith("speil/")
    async with host_of(settings) as host:
        assert host.local.peer_id == first


async def test_a_key_that_cannot_be_used_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "private.key").write_text("not a key")
    with pytest.raises(SettingError, match=r"--data-dir: .*private\.key"):
        host_of(replace(SETTINGS, data_dir=tmp_path))


async def test_addresses_that_peers_name_never_lead_to_the_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "5001")
    host = host_of(replace(SETTINGS, router_dial_ports=(5001,)))
    assert host.dial_rules.objection(Multiaddr.parse("/ip4/10.96.0.1/tcp/5001")) == "api_server"
    assert host.dial_rules.objection(Multiaddr.parse("/ip4/10.96.0.2/tcp/5001")) is None
    assert host.dial_rules.objection(Multiaddr.parse("/ip4/10.96.0.2/tcp/5002")) == "port"


async def test_a_router_speaks_the_protocol_of_its_region() -> None:
    metrics = Metrics()
    async with host_of(SETTINGS) as host, new_host() as other:
        router = build_router(
            SETTINGS,
            StaticBootstrapper(()),
            host,
            Policy("r", False),
            BorderRecord("r", metrics),
            "z",
            metrics,
            Random(1),
        )
        assert not router.ready
        connection = await other.connect(host.local)
        await eventually(lambda: "/speil/r/kad/1.0.0" in connection.peer.protocols, what="the protocol is advertised")
