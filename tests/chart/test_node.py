"""The node's containers: their arguments and environment are read by the command line that will read them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from speil.cli.app import COMMANDS
from speil.cli.doctor import Settings as DoctorSettings
from speil.config import all_settings, build, split_arguments
from speil.observe.settings import LogSettings
from speil.setting import declared
from tests.chart.rendering import (
    CHART,
    EXAMPLES,
    Manifest,
    Objects,
    RefusedError,
    Values,
    arguments,
    environment,
    render,
)

pytestmark = pytest.mark.requires("helm")
LABELS = {"topology.kubernetes.io/region": "from-the-label", "topology.kubernetes.io/zone": "zone-of-the-label"}
NO_SETTINGS = {"NODE_IP"}  # what arguments are put together from
FOR_DOCTOR = {one.env for one in declared(DoctorSettings)}  # run in the same container
# the chart has no use for these: other stores and kinds, what a node finds out by itself, another name of
# httpBootstrapPeer, and ports of peers, which are the same on all nodes of a release
NOT_IN_THE_CHART = {
    "store_kind", "oci_layout_path", "lease_file", "kubeconfig_context", "basic_auth_dir",
    "topology_from_node", "node_platforms", "http_bootstrap_url", "http_bootstrap_cert_dir", "router_dial_ports",
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
    unknown = set(environ) - {one.env for one in known} - NO_SETTINGS - (FOR_DOCTOR if name == "registry" else set())
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
        "speil": {"defaultRegistry": "a.b", "dhtProtocolPrefix": "/x", "debugWebHosts": ["a.b"]},
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
    for odd in ("fd00::9", "[fd00::9]"):
        assert doctor_of({"region": "eu", "service": {"registry": {"nodeIp": odd}}})[0].mirror_targets == (
            "http://[fd00::9]:30020",
        )  # fmt: skip


# what the shell, YAML, Go's templates, the kubelet or a list could take for something else
ODD = (
    "a,b", "a b", 'say "x"', "it's", "$(NODE_NAME)", "$$(NODE_NAME)", "$(NOBODY)", "$$", "$$$", ":latest$", "a$|b$",
    "^$", "back\\slash\\d", "#no: comment", "{{ .Values }}", "- item", "*", "tab\tin", "ünïcode", "%s", "a{1,3}",
    "[a-z]{2,}", "(", "!yes", "null", "1e3",
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_odd_texts_reach_the_process_unharmed(odd: str) -> None:
    values = {
        "service": {"registry": {"nodeIp": odd}},
        "spegel": {
            "registryFilters": [odd],
            "additionalMirrorTargets": [f"https://m.example.org/{odd}"],
            "containerdNamespace": odd,
            "containerdSock": f"/run/{odd}/c.sock",
            "containerdRegistryConfigPath": f"/etc/{odd}/certs.d",
        },
        "speil": {"defaultRegistry": odd},
        "dnsBootstrapDomain": odd,
        "bootstrapKind": "dns",
    }
    objects = render(values)
    pod = objects.only("DaemonSet")["spec"]["template"]["spec"]
    (init,), (registry,) = pod["initContainers"], pod["containers"]
    environ = {"NODE_NAME": "node-1", **environment(init)}
    assert environ["NODE_IP"] == odd
    said = [*arguments(init, environ), *arguments(registry, environ)]
    for expected in (
        f"--registry-filters={odd}", f"--mirror-targets=https://m.example.org/{odd}", f"--containerd-namespace={odd}",
        f"--containerd-sock=/run/{odd}/c.sock", f"--containerd-registry-config-path=/etc/{odd}/certs.d",
        f"--default-registry={odd}", f"--dns-bootstrap-domain={odd}",
    ):  # fmt: skip
        assert expected in said
    paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert {f"/run/{odd}", f"/etc/{odd}/certs.d"} <= paths


def test_the_nodes_address_may_stand_in_the_operators_targets() -> None:
    values = {"spegel": {"additionalMirrorTargets": ["http://$(NODE_IP):5555", "http://$(NODE_IP):30020"]}}
    assert node_of(render(values))[0].mirror_targets == (
        "http://10.0.0.9:30020", "http://10.0.0.9:30021", "http://10.0.0.9:5555",
    )  # fmt: skip


def test_commas_in_the_paths_of_targets_are_theirs() -> None:
    targets = [
        "https://m.example.org/a,b",
        "https://m.example.org/v2/c,d,e",
        "http://[fd00::7]:5000",
        "https://n.example.org",
    ]
    configuration, _ = node_of(render({"region": "eu", "spegel": {"additionalMirrorTargets": targets}}))
    assert configuration.mirror_targets == ("http://10.0.0.9:30020", *targets)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["_default"], ["_default"]),
        (["*"], ["*"]),
        (["https://docker.io", "*"], ["https://docker.io", "*"]),
        (["https://docker.io,"], ["https://docker.io"]),
        (["https://docker.io, https://ghcr.io,"], ["https://docker.io", "https://ghcr.io"]),
        (["https://docker.io", ""], ["https://docker.io"]),
        (["https://[fd00::1]:5000"], ["https://[fd00::1]:5000"]),
        (["https://docker.io", "https://docker.io"], ["https://docker.io"]),
    ],
)
@pytest.mark.parametrize("name", ["mirroredRegistries", "registries"])
def test_lists_of_registries(name: str, given: list[str], expected: list[str]) -> None:
    pod = render({"spegel": {name: given}}).only("DaemonSet")["spec"]["template"]["spec"]
    for container in (pod["initContainers"][0], pod["containers"][0]):
        found = [one for one in container["args"] if one.startswith("--mirrored-registries")]
        assert found == [f"--mirrored-registries={one}" for one in expected]


def test_a_pattern_that_is_empty_is_left_out() -> None:
    # of `--set spegel.registryFilters={a,}`: an empty pattern would leave every image alone
    pod = render({"spegel": {"registryFilters": ["a", ""]}}).only("DaemonSet")["spec"]["template"]["spec"]
    assert [one for one in pod["containers"][0]["args"] if "filters" in one] == ["--registry-filters=a"]


def test_keys_and_names_that_yaml_would_take_for_something_else() -> None:
    for odd in ("null", "true", "1", "1e3", "on", "0x1"):
        objects = render({"regionSecret": {"value": "x" * 32, "key": odd}, "priorityClassName": odd})
        assert list(objects.only("Secret")["data"]) == [odd]
        pod = objects.only("DaemonSet")["spec"]["template"]["spec"]
        (volume,) = (one for one in pod["volumes"] if one["name"] == "region-secret")
        assert volume["secret"]["items"] == [{"key": odd, "path": odd}]
        assert pod["priorityClassName"] == odd


def test_probes_ask_the_registry_port() -> None:
    pod = render({}).only("DaemonSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez", "readiness": "/readyz", "liveness": "/livez",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {"registry"}
    startup = container["startupProbe"]
    waited = startup["initialDelaySeconds"] + startup["periodSeconds"] * startup["failureThreshold"]
    assert waited >= 180, "as long as Spegel's"


def test_containerds_directories_are_mounted_and_only_hosts_toml_may_be_written() -> None:
    pod = render({}).only("DaemonSet")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/run/containerd"]["readOnly"] is True, "the directory: a socket's file is gone with its containerd"
    assert mounts["/run/containerd"]["mountPropagation"] == "HostToContainer"
    assert mounts["/var/lib/containerd/io.containerd.content.v1.content"]["readOnly"] is True
    for path in ("/etc/containerd", "/etc/containerd/certs.d"):
        assert mounts[path]["readOnly"] is True, "for doctor"
    (init,) = pod["initContainers"]
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/etc/containerd/certs.d"]


def doctor_of(values: Values) -> tuple[DoctorSettings, set[str]]:
    """What doctor reads in a node's container, and the container's mounts."""
    (container,) = render(values).only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    environ = environment(container)
    settings = build(DoctorSettings, split_arguments("doctor", [], declared(DoctorSettings)), environ)
    return settings, {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("config_path", "seen"),
    [
        ("/etc/containerd/certs.d", "/etc/containerd"),
        ("/etc/containerd/certs.d/", "/etc/containerd"),
        ("/var/lib/rancher/k3s/agent/etc/containerd/certs.d", "/var/lib/rancher/k3s/agent/etc/containerd"),
        ("/etc/certs.d", ""),
        ("/own", ""),
    ],
)
def test_doctor_finds_in_the_container_what_it_looks_at(config_path: str, seen: str) -> None:
    values = {
        "spegel": {
            "containerdRegistryConfigPath": config_path,
            "containerdSock": "/run/k3s/containerd/containerd.sock",
        },
        "service": {"registry": {"port": 5678, "hostPort": 30999, "nodePort": 31234}, "metrics": {"port": 9999}},
    }
    settings, mounts = doctor_of(values)
    assert settings.containerd_registry_config_path == Path(config_path)
    assert settings.containerd_sock == "/run/k3s/containerd/containerd.sock"
    assert (settings.registry_addr.port, settings.metrics_addr.port) == (5678, 9999)
    assert settings.mirror_targets == ("http://10.0.0.9:30999", "http://10.0.0.9:31234")
    assert config_path in mounts
    if seen:
        assert settings.containerd_config == Path(seen) / "config.toml"
        assert seen in mounts
    # never a directory that would hide the container's own
    assert not mounts & {"/", "/etc", "/run", "/var", "/var/lib", "/usr"}
    assert not doctor_of({"spegel": {"containerdMirrorAdd": False}})[1] & {"/etc/containerd", "/etc/containerd/certs.d"}


def test_a_token_is_mounted_only_where_the_api_server_is_asked() -> None:
    def mounted(values: dict[str, Any], kube: str = "") -> bool:
        pod = render(values, kube=kube).only("DaemonSet")["spec"]["template"]["spec"]
        return bool(pod["automountServiceAccountToken"])

    assert mounted({})
    assert not mounted({"bootstrapKind": "dns"})
    assert not mounted({"spegel": {"kubeconfigPath": "/etc/kubeconfig"}})
    assert mounted({"bootstrapKind": "dns"}, kube="1.30.0"), "the node's labels are read there"


def test_every_container_has_the_least_rights() -> None:
    """Those with which tests/system/image runs the image."""
    objects = render({"bootstrapKind": "dns"})
    for container, pod in objects.containers():
        assert container["securityContext"] == {
            "runAsUser": 0,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }, container["name"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), container["name"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, container["name"]
        assert set(container["resources"]["limits"]) == {"memory"}, "a limit of CPU would slow down pulls and starts"
    (node,) = objects.only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert node["resources"]["limits"] == {"memory": "128Mi"}, "what the test of the image gives it"


def test_more_arguments_and_variables_reach_the_node_and_win_over_the_charts() -> None:
    objects = render(
        {
            "bootstrapKind": "dns",
            "extraArgs": ["--uploads-max=7", "--router-dial-ports=5008"],
            "extraEnv": [{"name": "DEFAULT_REGISTRY", "value": "reg.example.org"}],
        }
    )
    (container,) = objects.only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    _, settings, _ = read(container)
    assert settings.mirror.uploads_max == 7
    assert settings.mirror.default_registry == "reg.example.org"


def test_probes_wait_for_a_node_whose_cpus_are_busy() -> None:
    (node,) = render({"bootstrapKind": "dns"}).only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert node[probe]["timeoutSeconds"] >= 5
    liveness = node["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60, "a restart makes a busy machine busier"
    assert "enabled" not in liveness


def test_a_release_of_an_older_chart_that_reuses_its_values_gets_the_probes() -> None:
    """`--reuse-values` leaves out what is new, and Kubernetes' own timings are too short for a slow start."""
    old: dict[str, Any] = {"bootstrapKind": "dns", "startupProbe": None, "readinessProbe": None}
    (node,) = render(old).only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert node["startupProbe"]["failureThreshold"] == 180
    assert node["readinessProbe"]["timeoutSeconds"] == 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"podLabels": {"app.kubernetes.io/name": "other"}}, "app.kubernetes.io/name is the chart's own"),
        ({"extraArgs": ["uploads-max=7"]}, "extraArgs"),
        ({"extraEnv": [{"value": "7"}]}, "extraEnv"),
        ({"readinessProbe": {"httpGet": {}}}, "readinessProbe"),
        ({"livenessProbe": {"periodSeconds": 0}}, "periodSeconds"),
        ({"podLabels": {"speil.dev/region": "other"}}, "podLabels: speil.dev/region is the chart's own"),
        (
            {"commonLabels": {"app.kubernetes.io/name": "other"}},
            "commonLabels: app.kubernetes.io/name is the chart's own",
        ),
        ({"podLabels": {"topology.kubernetes.io/region": "other"}}, "set `region` or `zone`"),
        ({"extraEnv": [{"name": "REGION", "value": "other"}]}, "extraEnv: REGION is set by the chart"),
        ({"extraEnv": [{"name": "NODE_IP", "value": "10.0.0.1"}]}, "extraEnv: NODE_IP is set by the chart"),
        ({"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "extraEnv: A is named twice"),
        ({"image": {"repository": "registry.example.org:5000/speil:0.1.0"}}, "no tag and no digest"),
        ({"image": {"repository": "https://registry.example.org/speil"}}, "no https://"),
        ({"image": {"repository": "registry.example.org/Speil"}}, "no capital letters"),
        ({"image": {"tag": "v 1"}}, "image/tag"),
    ],
)
def test_what_would_break_the_node_is_refused(values: Values, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        render({"bootstrapKind": "dns", **values})
