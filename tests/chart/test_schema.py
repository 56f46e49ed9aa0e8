"""values.schema.json: misspelt values are refused, with helm's messages. helm prints all of them at once."""

from __future__ import annotations

import pytest

from tests.chart.rendering import RefusedError, Values, render

pytestmark = pytest.mark.requires("helm")
MISSPELT: Values = {
    "leaderElectionNam": "x",
    "spegel": {"mirroredRegistrys": []},
    "speil": {"uploads": 1},
    "service": {"registry": {"hostport": 1}},
    "regions": [{"name": "a", "nodeselector": {}}, {}],
    "cleanup": {"timeout": 1},
    "networkPolicy": {"enable": True},
}
WRONG: Values = {
    "bootstrapKind": "file",
    "region": "eu.west",
    "regions": [{"name": ""}, {"name": "EU_West"}, {"name": "a", "nodePort": 70000}],
    "leaderElectionName": "Lease",
    "leaderElectionNamespace": "a.b",
    "regionNetworks": ["the office"],
    "service": {"metrics": {"port": 70000}},
    "spegel": {"mirrorResolveTimeout": "20", "logLevel": "debug", "mirroredRegistries": ["docker.io"]},
    "networkPolicy": {"enabled": "yes"},
    "grafanaDashboard": {"mode": "sidecar"},
    "httpBootstrapPeer": "10.0.0.7",
    "createNamespace": "yes",
    "tolerations": {},
}


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(RefusedError) as raised:
        render(MISSPELT)
    said = str(raised.value)
    for name in ("mirroredRegistrys", "uploads", "hostport", "nodeselector", "timeout", "enable", "leaderElectionNam"):
        assert f"additional properties '{name}' not allowed" in said
    assert "at '/regions/1': missing property 'name'" in said


def test_values_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(RefusedError) as raised:
        render(WRONG)
    for where in (
        "/bootstrapKind", "/region", "/regions/0/name", "/regions/1/name", "/regions/2/nodePort", "/leaderElectionName",
        "/leaderElectionNamespace", "/regionNetworks/0", "/service/metrics/port", "/spegel/mirrorResolveTimeout",
        "/spegel/logLevel", "/spegel/mirroredRegistries/0", "/networkPolicy/enabled", "/grafanaDashboard/mode",
        "/httpBootstrapPeer", "/createNamespace", "/tolerations",
    ):  # fmt: skip
        assert f"at '{where}'" in str(raised.value)


def test_values_of_a_chart_around_this_one_are_let_through() -> None:
    assert render({"global": {"imageRegistry": "registry.example.org"}}).of("DaemonSet")
