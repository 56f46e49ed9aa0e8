"""doctor on a node with a real containerd: all well, the self-test pull, and containerd's own traps."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.terminals import check_interrupt
from tests.system.conftest import Lab
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY, Node
from tests.system.test_pulls import LAYERS

pytestmark = pytest.mark.system


def doctor_argv(node: Node) -> list[str]:
    """The command line for a node of the lab."""
    return [
        sys.executable, "-m", "speil", "doctor", f"--containerd-sock={node.containerd.socket}",
        f"--containerd-registry-config-path={node.containerd.certs}",
        f"--containerd-config={node.containerd.config_file}", "--output=json",
    ]  # fmt: skip


async def doctor(node: Node, *flags: str) -> tuple[int, dict[str, Any]]:
    """Run it inside the node; exit code and findings by check."""
    argv = [*doctor_argv(node), *flags]

    def run() -> subprocess.CompletedProcess[bytes]:
        process = node.namespace.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    done = await asyncio.to_thread(run)
    image = next((flag.partition("=")[2] for flag in flags if flag.startswith("--image=")), "")
    assert done.stderr.decode() == (f"pulling {image} through containerd\n" if image else "")
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["check"]: finding for finding in findings}


async def test_all_is_well_and_the_self_test_pull_arrives(lab: Lab) -> None:
    lab.registry.push(random_image(50, LAYERS), "lab/doctor", "1")
    code, found = await doctor(lab.nodes[0], f"--image={REGISTRY}/lab/doctor:1")
    assert code == 0, found
    assert {name for name, finding in found.items() if finding["level"] != "ok"} == {"answers"}, found
    assert "a stranger" in found["answers"]["message"], "the lab's nodes have no secret"
    assert "requests arrived" in found["self-test"]["message"]


async def test_a_pull_that_goes_past_speil_is_seen(lab: Lab) -> None:
    node = lab.nodes[0]
    lab.registry.push(random_image(51, LAYERS), "lab/past", "1")
    hosts = node.containerd.certs / REGISTRY / "hosts.toml"
    hosts.write_text(f'server = "{lab.registry.url}"\n\n[host."{lab.registry.url}"]\n')
    code, found = await doctor(node, f"--image={REGISTRY}/lab/past:1")
    assert code == 1
    assert found["self-test"]["level"] == "fail"
    assert "no request arrived" in found["self-test"]["message"]
    assert found[f"hosts.toml of {REGISTRY}"]["level"] == "warn"


async def test_an_interrupt_ends_the_self_test_at_once(lab: Lab, tmp_path: Path) -> None:
    """While containerd pulls from a registry that does not answer."""
    node = lab.nodes[0]
    with inside(node.namespace), socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hosts = node.containerd.certs / REGISTRY / "hosts.toml"
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hosts.write_text(f'server = "{url}"\n\n[host."{url}"]\n')
        argv = ["ip", "netns", "exec", node.namespace.name, *doctor_argv(node)[:-1], f"--image={REGISTRY}/lab/never:1"]
        shown = check_interrupt(argv, f"pulling {REGISTRY}/lab/never:1 through containerd: 0 s", tmp_path)
        assert "self-test" not in shown


async def test_a_containerd_that_reads_another_directory_is_seen(lab: Lab) -> None:
    code, found = await doctor(lab.nodes[0], "--containerd-registry-config-path=/elsewhere")
    assert code == 1
    assert "containerd reads" in found["config_path"]["message"]


async def test_a_containerd_that_discards_layers_is_seen_and_warned_about(lab: Lab) -> None:
    node = lab.nodes[0]
    node.speil.stop()
    node.containerd.process.stop()
    config = node.containerd.config_file
    config.write_text(config.read_text().replace("discard_unpacked_layers = false", "discard_unpacked_layers = true"))
    await node.containerd.start()
    await node.start_speil()
    code, found = await doctor(node)
    assert code == 1
    assert found["layers"]["level"] == "fail"
    await eventually(lambda: "discards unpacked layers" in node.speil.log_text(), what="the node warns")
