"""Who gets a secret by default, and what is rendered without a cluster.

With one: tests/system/kube/test_chart_secret.py.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.chart.rendering import Objects, Values, environment, notes, render
from tests.chart.test_spegel_values import SPEGEL, THREE_LINES, of_spegel

pytestmark = pytest.mark.requires("helm")
STATIC = {"bootstrapKind": "static", "staticBootstrapPeers": ["/ip4/10.0.0.7/tcp/5001"]}
WITH_A_SECRET: dict[str, Values] = {
    "the three lines": THREE_LINES,
    "the region's name": {"region": "eu"},
    "names that are not the usual ones": {"leaderElectionName": "lease-eu", "leaderElectionNamespace": "mirrors-eu"},
    "several regions": {"regions": [{"name": "eu"}]},
    "a region with dns": {"bootstrapKind": "dns", "region": "eu"},
    "a region with http": {"bootstrapKind": "http", "httpBootstrapPeer": "http://10.0.0.7/id", "region": "eu"},
    "a region with static": {**STATIC, "region": "eu"},
    "a shared mesh, asked for": {
        **THREE_LINES,
        "speil": {"dhtProtocolPrefix": "/m"},
        "regionSecret": {"generate": True},
    },
    "one of several": {
        "regionSecret": {"generate": False},
        "regions": [{"name": "eu", "regionSecret": {"generate": True}}],
    },
    **{f"Spegel's {version}": of_spegel(version, **THREE_LINES) for version in SPEGEL},
}
WITHOUT: dict[str, Values] = {
    "nothing": {},
    "dns": {"bootstrapKind": "dns"},
    "http": {"bootstrapKind": "http", "httpBootstrapPeer": "http://10.0.0.7/id"},
    "static": STATIC,
    "names without an ending": {"leaderElectionName": "spegel-leader-election", "leaderElectionNamespace": "spegel"},
    "a mesh with Spegel": {**THREE_LINES, "speil": {"dhtProtocolPrefix": "/spegel"}},
    "regions in a mesh with Spegel": {"regions": [{"name": "eu"}], "speil": {"dhtProtocolPrefix": "/spegel"}},
    "switched off": {**THREE_LINES, "regionSecret": {"generate": False}},
    **{f"Spegel's {version}": of_spegel(version) for version in SPEGEL},
}


def secret_of(objects: Objects) -> list[Any]:
    """Where the pods of the one DaemonSet have their secret from; each container has it, or none."""
    pod = objects.only("DaemonSet")["spec"]["template"]["spec"]
    found = [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "region-secret"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert ("REGION_SECRET_FILE" in environment(container)) == bool(found)
    return found


@pytest.mark.parametrize("values", WITH_A_SECRET.values(), ids=WITH_A_SECRET)
def test_a_region_has_a_secret_without_a_word_about_it(values: Values) -> None:
    assert secret_of(render(values)) == ["speil-eu-region" if "regions" in values else "speil-region"]


@pytest.mark.parametrize("values", WITHOUT.values(), ids=WITHOUT)
def test_who_may_meet_spegel_has_none(values: Values) -> None:
    assert secret_of(render(values)) == []


@pytest.mark.parametrize("values", WITH_A_SECRET.values(), ids=WITH_A_SECRET)
def test_without_a_cluster_no_secret_is_invented(values: Values) -> None:
    for more in ((), ("--is-upgrade",)):
        # what differs from rendering to rendering would be another secret with each synchronization
        first, second = render(values, *more), render(values, *more, "--skip-tests")
        assert first.all == second.all
        assert not [one for one in first.all if one["kind"] == "Secret"]


def test_the_notes_name_the_command_where_there_is_no_cluster() -> None:
    said = notes(THREE_LINES)
    assert "the pods of region regiona wait for the Secret mirror/speil-region" in said
    command = 'kubectl -n mirror create secret generic speil-region --from-literal=secret="$(openssl rand -hex 32)"'
    assert command in said
    for values in ({}, {**THREE_LINES, "regionSecret": {"existingSecret": "mine"}}):
        assert "wait for the Secret" not in notes(values)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({**THREE_LINES, "regionSecret": {"generate": False}}, "regionSecret.generate is false"),
        ({**THREE_LINES, "speil": {"dhtProtocolPrefix": "/spegel"}}, "speil.dhtProtocolPrefix is /spegel"),
        (
            {**THREE_LINES, "speil": {"dhtProtocolPrefix": "/spegel"}, "regionSecret": {"generate": False}},
            "regionSecret.generate is false",
        ),
    ],
)
def test_a_region_without_a_secret_is_told_what_that_means(values: Values, why: str) -> None:
    said = notes(values)
    assert "WARNING: region regiona has no secret: whoever reaches its ports may join it" in said
    assert why in said
    assert "has no secret" not in notes(THREE_LINES)
    assert "has no secret" not in notes({})


def test_a_secret_among_the_values_is_rendered_and_kept() -> None:
    lines = f"{'a' * 32}\n{'b' * 32}\n"
    secret = render({**THREE_LINES, "regionSecret": {"value": lines}}).only("Secret")
    assert base64.b64decode(secret["data"]["secret"]).decode() == lines
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_notes_never_tell_a_secret() -> None:
    value = "a-secret-that-nobody-should-see"
    assert value not in json.dumps(notes({**THREE_LINES, "regionSecret": {"value": value}}))
