"""What doctor says, for each thing that can be wrong. The self-test pull is in tests/system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from speil.doctor.checks import findings
from speil.doctor.facts import Facts, RegistryDirectory, gather, local_url
from speil.finding import Finding, Level
from speil.hosts_toml.document import Mirrors, render
from speil.hosts_toml.judge import judge
from speil.setting import ListenAddress
from speil.store.containerd.inspect import ContainerdFacts, from_file
from tests.shell.nodes import running_node

URL = "http://127.0.0.1:5000"
GOOD_FILE = judge(render("https://docker.io", Mirrors((URL,))))
GOOD = Facts(
    socket="/run/containerd/containerd.sock",
    config_path=Path("/etc/containerd/certs.d"),
    config_file=Path("/etc/containerd/config.toml"),
    metrics_url="http://127.0.0.1:9090",
    mirror_urls=(URL,),
    containerd=ContainerdFacts("2.4.2", "/etc/containerd/certs.d", discard_unpacked_layers=False, source="status"),
    config_exists=True,
    directories=(RegistryDirectory("docker.io", Path("/etc/containerd/certs.d/docker.io/hosts.toml"), GOOD_FILE),),
    mirrors={URL: 200},
    state={"ready": True, "store_available": True, "peers": [{"peer": "x"}]},
)


def check(facts: Facts, name: str) -> Finding:
    """The finding of a check."""
    return next(finding for finding in findings(facts) if finding.check.startswith(name))


def test_where_all_is_well_all_is_ok() -> None:
    assert {finding.level for finding in findings(GOOD)} == {Level.OK}


def containerd(
    version: str = "2.4.2", path: str | None = "/etc/containerd/certs.d", *, discard: bool = False
) -> ContainerdFacts:
    return ContainerdFacts(version, path, discard_unpacked_layers=discard, source="status")


def file(text: str) -> tuple[RegistryDirectory, ...]:
    return (RegistryDirectory("docker.io", Path("hosts.toml"), judge(text)),)


@pytest.mark.parametrize(
    ("facts", "name", "level", "words"),
    [
        (replace(GOOD, containerd=None, containerd_error="no such file"), "containerd", Level.FAIL, "does not answer"),
        (replace(GOOD, containerd=containerd(path=None)), "config_path", Level.FAIL, "ignores every hosts.toml"),
        (replace(GOOD, containerd=containerd("1.6.20", None)), "config_path", Level.WARN, "reads no hosts.toml"),
        (replace(GOOD, containerd=containerd(path="/a:/b")), "config_path", Level.FAIL, "one directory's name"),
        (replace(GOOD, containerd=containerd(path="/other")), "config_path", Level.FAIL, "containerd reads /other"),
        (replace(GOOD, containerd=containerd(discard=True)), "layers", Level.FAIL, "keeps no layers"),
        (
            replace(GOOD, drop_ins=(Path("/etc/containerd/conf.d/a.toml"),)),
            "drop-ins",
            Level.WARN,
            "a.toml in conf.d is not read",
        ),
        (replace(GOOD, directories=()), "hosts.toml", Level.FAIL, "there is no hosts.toml"),
        (replace(GOOD, directories=file("")), "hosts.toml of docker.io", Level.FAIL, "empty"),
        (
            replace(GOOD, directories=file('[host."http://other"]')),
            "hosts.toml of docker.io",
            Level.WARN,
            "not among its hosts",
        ),
        (
            replace(GOOD, directories=file(f'[host."http://other"]\n[host."{URL}"]')),
            "hosts.toml of docker.io",
            Level.WARN,
            "before speil",
        ),
        (replace(GOOD, mirrors={URL: None}), "mirror", Level.FAIL, "nothing answers"),
        (replace(GOOD, mirrors={URL: 302}), "mirror", Level.FAIL, "answers 302"),
        (replace(GOOD, state=None), "state", Level.WARN, "metrics port"),
        (replace(GOOD, state={"ready": False, "store_available": True, "peers": []}), "ready", Level.FAIL, "not ready"),
        (
            replace(GOOD, state={"ready": True, "store_available": False, "peers": []}),
            "store",
            Level.FAIL,
            "content store",
        ),
        (replace(GOOD, state={"ready": True, "store_available": True, "peers": []}), "peers", Level.WARN, "no peers"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(facts: Facts, name: str, level: Level, words: str) -> None:
    finding = check(facts, name)
    assert finding.level is level
    assert words in finding.message
    assert finding.remedy or level is Level.WARN


IN_POD = replace(GOOD, is_in_pod=True)
ASKED = {"ready": True, "store_available": True, "peers": [{}], "recent_requests": [{"client": "node"}]}
UNTOLD = containerd(path=None)


@pytest.mark.parametrize(
    ("facts", "name", "level"),
    [
        # what is not mounted in the pod may be on the node: only its effect can show it
        (replace(IN_POD, containerd=UNTOLD, config_exists=False), "config_path", Level.WARN),
        (replace(IN_POD, containerd=UNTOLD, config_exists=False, state=ASKED), "config_path", Level.OK),
        (replace(IN_POD, containerd=UNTOLD, config_imports=("/nowhere/*.toml",)), "config_path", Level.WARN),
        (replace(IN_POD, directories=(), config_path_exists=False), "hosts.toml", Level.WARN),
        (replace(IN_POD, directories=(), config_path_exists=False, state=ASKED), "hosts.toml", Level.OK),
        (replace(IN_POD, mirrors={URL: None}, registry=200), "mirror", Level.WARN),
        (replace(IN_POD, mirrors={URL: None}, registry=200, state=ASKED), "mirror", Level.OK),
        # what is seen counts as on the node
        (replace(IN_POD, containerd=UNTOLD), "config_path", Level.FAIL),
        (replace(IN_POD, containerd=containerd(path="/other"), state=ASKED), "config_path", Level.FAIL),
        (replace(IN_POD, directories=()), "hosts.toml", Level.FAIL),
        (replace(IN_POD, mirrors={URL: None}), "mirror", Level.FAIL),
        (replace(GOOD, directories=(), config_path_exists=False), "hosts.toml", Level.FAIL),
        (replace(GOOD, mirrors={URL: None}, registry=200), "mirror", Level.FAIL),
        (replace(GOOD, containerd=UNTOLD, config_exists=False), "config_path", Level.FAIL),
    ],
)
def test_in_a_pod_what_is_not_seen_is_no_failure(facts: Facts, name: str, level: Level) -> None:
    finding = check(facts, name)
    assert finding.level is level
    assert finding.remedy or level is Level.OK


@pytest.mark.parametrize("pattern", ["conf.d/*.toml", "{folder}/conf.d/*.toml"])
async def test_what_the_configuration_imports_counts(tmp_path: Path, pattern: str) -> None:
    table = "plugins.'io.containerd.cri.v1.images'"
    main, first, second = tmp_path / "config.toml", tmp_path / "conf.d" / "a.toml", tmp_path / "conf.d" / "b.toml"
    first.parent.mkdir()
    main.write_text(
        f'version = 3\nimports = ["{pattern.format(folder=tmp_path)}"]\n[{table}.registry]\nconfig_path = "/0"\n'
    )
    assert from_file(main)["config_path"] == "/0"
    first.write_text(f'[{table}.registry]\nconfig_path = "/a"\n[{table}]\ndiscard_unpacked_layers = true\n')
    second.write_text(f'imports = ["*.toml"]\n[{table}.registry]\nconfig_path = "/b"\n')
    found = from_file(main)
    assert (found["config_path"], found["discard"]) == ("/b", True)
    second.write_text("plugins = 7\n[broken")
    assert from_file(main)["config_path"] == "/a"


async def test_facts_are_gathered_from_a_running_node(tmp_path: Path) -> None:
    certs = tmp_path / "certs.d"
    (certs / "docker.io").mkdir(parents=True)
    (certs / "_backup").mkdir()
    async with running_node(tmp_path, tmp_path / "layout") as node:
        metrics = local_url(ListenAddress(node.host, node.metrics_port))
        (certs / "docker.io" / "hosts.toml").write_text(render("https://docker.io", Mirrors((node.url,))))
        facts = await gather("/nowhere.sock", "k8s.io", certs, tmp_path / "config.toml", (node.url,), metrics)
    assert facts.containerd is None
    assert "nowhere" in facts.containerd_error
    assert facts.mirrors == {node.url: 200}
    assert facts.state is not None
    assert facts.state["ready"]
    assert [one.name for one in facts.directories] == ["docker.io"]
    assert check(facts, "hosts.toml of docker.io").level is Level.OK


def test_a_server_on_all_addresses_is_reached_on_loopback() -> None:
    assert local_url(ListenAddress("", 5000)) == "http://127.0.0.1:5000"
    assert local_url(ListenAddress("fd00::1", 5000)) == "http://[fd00::1]:5000"


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ({"topology_region": "eu"}, Level.OK, "region r (from: lease names), label eu"),
        ({"topology_region": "", "region_from": "setting"}, Level.OK, "no label"),
        ({"topology_region": "", "has_secret": True}, Level.OK, "no label"),
        ({"topology_region": "", "has_networks": True}, Level.OK, "no label"),
        ({"topology_region": ""}, Level.WARN, "only the Lease's names"),
        ({"topology_region": "eu", "notes": ["the node's label is eu; the names decide"]}, Level.WARN, "label is eu"),
        ({"topology_region": "eu", "lease_is_foreign": True}, Level.FAIL, "the Lease spegel-r/x is another region's"),
        ({"topology_region": "eu", "lease_is_foreign": True, "peers": []}, Level.FAIL, "comes from upstream"),
    ],
)
def test_the_region_is_told_with_its_contradictions(state: dict[str, object], level: Level, words: str) -> None:
    assert GOOD.state is not None
    told = {**GOOD.state, "region": "r", "region_from": "lease names", "lease": "spegel-r/x", **state}
    found = [finding for finding in findings(replace(GOOD, state=told)) if finding.check == "region"]
    assert [one for one in found if one.level is level and words in one.message], found
    assert all(one.remedy for one in found if one.level is not Level.OK)


@pytest.mark.parametrize(
    ("state", "name", "level", "words"),
    [
        ({"peers_prove_themselves": True}, "answers", Level.OK, "prove themselves"),
        ({"peers_prove_themselves": False, "resolve_tags": True}, "answers", Level.WARN, "an image of its choice"),
        ({"peers_prove_themselves": False, "resolve_tags": False}, "answers", Level.OK, "no tag"),
        ({"peers_prove_themselves": True, "has_secret": True, "node_name": ""}, "node token", Level.WARN, "any node"),
    ],
)
def test_what_is_open_to_strangers_is_told(state: dict[str, object], name: str, level: Level, words: str) -> None:
    assert GOOD.state is not None
    finding = check(replace(GOOD, state={**GOOD.state, **state}), name)
    assert finding.level is level
    assert words in finding.message
    assert finding.remedy or level is Level.OK


@pytest.mark.parametrize(("status", "level"), [(200, Level.OK), (401, Level.FAIL), (404, Level.FAIL)])
def test_headers_that_speil_refuses_are_found(status: int, level: Level) -> None:
    told = tuple(replace(one, answers={URL: status}) for one in GOOD.directories)
    finding = check(replace(GOOD, directories=told), "hosts.toml of docker.io")
    assert finding.level is level
    assert level is Level.OK or "speil configuration" in finding.remedy


def test_headers_of_a_hosts_toml_are_read_as_containerd_sends_them() -> None:
    text = f'[host."{URL}"]\ncapabilities = ["pull"]\n[host."{URL}".header]\na = "b"\nc = ["d", "e"]\nf = 7\ng = []\n'
    assert judge(text).headers == {URL: {"a": "b", "c": "d"}}
    assert judge(f'[host]\n"{URL}" = 7').headers == {URL: {}}
