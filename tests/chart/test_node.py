"""The node's containers: their arguments and environment are read by the command line that will read them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from speil.cli.app import COMMANDS
from speil.config import all_settings, build, split_arguments
from speil.observe.settings import LogSettings
from speil.setting import declared
from tests.chart.rendering import CHART, EXAMPLES, Manifest, Objects, Values, arguments, environment, render

pytestmark = pytest.mark.requires("helm")
LABELS = {"topology.kubernetes.io/region": "from-the-label", "topology.kubernetes.io/zone": "zone-of-the-label"}
NO_SETTINGS = {"NODE_IP"}  # what arguments are put together from
# the chart has no use for these: other stores and kinds, and what a node finds out by itself
NOT_IN_THE_CHART = {
    "store_kind", "oci_layout_path", "lease_file", "kubeconfig_context", "basic_auth_dir", "containerd_config",
    "topology_from_node", "node_platforms",
}  # fmt: skip


def read(
    container: Manifest, labels: Mapping[str, str] = LABELS, host_ip: str = "10.0.0.9"
) -> tuple[str, Any, list[str]]:
    """The command of a container, its settings as the command reads them, and the warnings about old names."""
    environ = environment(container, labels, host_ip)
    name, *argv = arguments(container, environ)
    (command,) = (one for one in COMMANDS if one.name == name)
    kind = importlib.import_module(f"speil.cli.{command.module}").Settings
    known = [*all_settings(kind), *(one for one in declared(LogSettings) if one not in all_settings(kind))]
    unknown = set(environ) - {one.env for one in known} - NO_SETTINGS
    assert not unknown, f"{name} knows no variable {unknown}"
    found = split_arguments(name, argv, known)
    assert not found.positional
    return name, build(kind, found, environ), found.warnings


def node_of(objects: Objects, name: str = "") -> tuple[Any, Any]:
    """What `configuration` and `registry` of a DaemonSet read."""
    pod = objects.only("DaemonSet", name)["spec"]["template"]["spec"]
    return read(pod["initContainers"][-1])[1], read(pod["containers"][0])[1]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_flag_and_variable_is_a_setting_that_its_command_takes(example: Path) -> None:
    commands = set()
    for container, pod in render(example).containers():
        name, _, warnings = read(container)
        commands.add(name)
        assert not warnings, "the chart uses today's names"
        assert pod["enableServiceLinks"] is False
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    assert commands == {"configuration", "registry", "cleanup", "cleanup-wait"}


def test_every_setting_of_a_node_can_be_set_or_is_left_out_on_purpose() -> None:
    everything: dict[str, Any] = {
        "regions": [{"name": "eu", "zone": "z", "regionNetworks": ["10.0.0.0/8"]}],
        "spegel": {"kubeconfigPath": "/k", "mirroredRegistries": ["https://a.b"], "registryFilters": ["x"]},
        "speil": {"defaultRegistry": "a.b", "dhtProtocolPrefix": "/x"},
        "regionSecret": {"generate": True},
    }
    kinds: list[dict[str, Any]] = [
        {},
        {"bootstrapKind": "dns"},
        {"bootstrapKind": "http", "httpBootstrapAddr": ":1", "httpBootstrapPeer": "http://a"},
        {"bootstrapKind": "static", "staticBootstrapPeers": ["/ip4/10.0.0.1/tcp/1"]},
    ]
    set_somewhere: set[str] = set()
    for kind in kinds:
        (container,) = render({**everything, **kind}).only("DaemonSet")["spec"]["template"]["spec"]["containers"]
        flags = {one.removeprefix("--").partition("=")[0].replace("-", "_") for one in container["args"][1:]}
        set_somewhere |= flags | {name.lower() for name in environment(container)}
    (registry,) = (one for one in COMMANDS if one.name == "registry")
    settings = {one.name for one in all_settings(importlib.import_module(f"speil.cli.{registry.module}").Settings)}
    assert settings - set_somewhere == NOT_IN_THE_CHART


def test_filters_reach_the_node_as_they_are_written() -> None:
    filters = ["^reg[.]test/a{1,2}/", "secret[[:digit:]]+$", "a,b", ""]
    _, registry = node_of(render({"spegel": {"registryFilters": filters}}))
    assert [pattern.pattern for pattern in registry.mirror.registry_filters] == filters[:3]


@pytest.mark.parametrize(
    ("registries", "hosts"),
    [
        ([], None),
        (["_default"], None),
        (["*"], None),
        (["https://docker.io", "_default"], None),
        (["https://docker.io", ""], {"docker.io"}),
        (["https://docker.io,"], {"docker.io"}),
    ],
)
def test_both_containers_of_a_node_take_the_same_registries(registries: list[str], hosts: set[str] | None) -> None:
    configuration, registry = node_of(render({"spegel": {"mirroredRegistries": registries}}))
    assert registry.mirror.mirrored_hosts == hosts
    assert configuration.mirrored_registries == registry.mirror.mirrored_registries


def test_both_containers_of_a_node_agree_about_the_region() -> None:
    cases: dict[str, Values | Path] = {
        "regiona": CHART / "examples" / "region-a.yaml",
        "eu-west": CHART / "examples" / "region-by-name.yaml",
        "from-the-label": {},
        "site-7": CHART / "examples" / "static.yaml",
    }
    for region, values in cases.items():
        configuration, registry = node_of(render(values))
        assert configuration.region.identity() == registry.region.identity()
        assert registry.region.identity().region == region
    configuration, registry = node_of(render({"regions": [{"name": "r1"}, {"name": "r2"}]}), "speil-r2")
    identity = registry.region.identity()
    assert (identity.region, identity.zone) == ("r2", "zone-of-the-label")
    assert str(identity.lease) == "spegel-r2/spegel-leader-election-r2"


def test_the_lease_that_a_node_asks_is_the_one_that_its_role_names() -> None:
    for example in EXAMPLES:
        objects = render(example)
        for daemon_set in objects.of("DaemonSet"):
            _, registry = node_of(objects, daemon_set["metadata"]["name"])
            region = daemon_set["metadata"]["labels"].get("speil.dev/region")
            roles = [one for one in objects.of("Role") if one["metadata"]["labels"].get("speil.dev/region") == region]
            if registry.router.bootstrap_kind != "kubernetes":
                assert not roles
                continue
            (role,) = roles
            lease = registry.region.identity().lease
            assert (role["metadata"]["namespace"], role["rules"][0]["resourceNames"]) == (lease.namespace, [lease.name])


def test_spegels_values_of_the_first_generation() -> None:
    configuration, registry = node_of(render(CHART / "examples" / "spegel-0.0.28.yaml"))
    assert configuration.mirror_targets == (
        "http://10.0.0.9:30020", "http://10.0.0.9:30021", "https://mirror.example.org",
    )  # fmt: skip
    assert configuration.mirrored_registries == ("https://docker.io", "https://ghcr.io")
    assert configuration.prepend_existing is True
    assert registry.mirror.mirrored_registries == ("https://docker.io", "https://ghcr.io")
    assert [one.pattern for one in registry.mirror.registry_filters] == [":latest$"]


def test_spegels_values_of_the_second_generation() -> None:
    objects = render(CHART / "examples" / "spegel-0.7.4.yaml")
    configuration, registry = node_of(objects)
    assert configuration.mirror_targets == (
        "http://127.0.0.1:30020", "http://127.0.0.1:30021", "https://mirror.example.org",
    )  # fmt: skip
    assert configuration.prepend_existing is True
    assert registry.router.data_dir == Path("/var/lib/spegel")
    assert registry.mirror.debug_web_enabled is False
    pod = objects.only("DaemonSet")["spec"]["template"]["spec"]
    for container in (pod["initContainers"][0], pod["containers"][0]):
        assert str(registry.mirror.basic_auth_dir) in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_nodes_with_ipv6_addresses_get_targets_that_containerd_takes() -> None:
    (init,) = render({"region": "eu"}).only("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    assert read(init, host_ip="fd00::9")[1].mirror_targets == ("http://[fd00::9]:30020",)


def test_probes_ask_the_registry_port() -> None:
    pod = render({}).only("DaemonSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez", "readiness": "/readyz", "liveness": "/livez",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {"registry"}


def test_containerds_directories_are_mounted_and_only_hosts_toml_may_be_written() -> None:
    pod = render({}).only("DaemonSet")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/run/containerd"]["readOnly"] is True, "the directory: a socket's file is gone with its containerd"
    assert mounts["/run/containerd"]["mountPropagation"] == "HostToContainer"
    assert mounts["/var/lib/containerd/io.containerd.content.v1.content"]["readOnly"] is True
    assert "/etc/containerd/certs.d" not in mounts
    (init,) = pod["initContainers"]
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/etc/containerd/certs.d"]


def test_a_token_is_mounted_only_where_the_api_server_is_asked() -> None:
    def mounted(values: dict[str, Any], kube: str = "") -> bool:
        pod = render(values, kube=kube).only("DaemonSet")["spec"]["template"]["spec"]
        return bool(pod["automountServiceAccountToken"])

    assert mounted({})
    assert not mounted({"bootstrapKind": "dns"})
    assert not mounted({"spegel": {"kubeconfigPath": "/etc/kubeconfig"}})
    assert mounted({"bootstrapKind": "dns"}, kube="1.30.0"), "the node's labels are read there"
