"""The command line as a user types it: real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from speil.demo.report import COPIES_MAX
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.conftest import Speil
from tests.shell.nodes import free_ports, running_node, write_layout

SECONDS_MAX = 60  # on a loaded machine; a command takes one
DEMO_SECONDS_MAX = 180  # twenty, half of which a lease takes to run out


async def speil(*argv: str, seconds_max: float = SECONDS_MAX, **environ: str) -> tuple[int, str, str]:
    """Run a command to its end; (exit code, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", *argv,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environ},
    )  # fmt: skip
    async with asyncio.timeout(seconds_max):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


def _hear_interrupts() -> None:
    """A shell starts what it runs in the background deaf to SIGINT, nohup to SIGHUP, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that runs on; ended by its pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=_hear_interrupts,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_version_and_help() -> None:
    code, out, _ = await speil("version", "--format", "json")
    assert code == 0
    assert json.loads(out)["version"]
    assert (await speil("version"))[1].startswith("speil ")
    assert "configuration" in (await speil("--help"))[1]
    assert (await speil())[0] == 0
    code, out, _ = await speil("registry", "--help")
    assert code == 0
    assert "--mirror-resolve-timeout <duration>  (default 20ms; MIRROR_RESOLVE_TIMEOUT)" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["regstry"], "unknown command 'regstry', did you mean registry?"),
        (["registry", "--bootstrap-kind=dns"], "--bootstrap-kind dns needs --dns-bootstrap-domain"),
        (["registry", "--store-kind=oci-layout"], "needs --oci-layout-path"),
        (["registry", "--containerd-sock=/dev/null"], "/dev/null is not a socket"),
        (["registry", "--containerd-content-path=/nowhere"], "/nowhere is not a directory"),
        (["demo", "--nodes=2"], "--nodes must be between 3 and 10"),
        (["demo", "--layers=0"], "--layers must be at least 1"),
        (["demo", "--layer-mib=0"], "--layer-mib must be at least 1"),
        (["demo", "--layers=100", "--layer-mib=100"], "--layers times --layer-mib must be at most 2048"),
    ],
)
async def test_a_bad_configuration_is_one_line_and_exit_code_2(argv: list[str], words: str) -> None:
    code, out, err = await speil(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["registry", "--mirror-resolve-timout=1s"], "did you mean --mirror-resolve-timeout?"),
        (["registry", "extra"], "unexpected argument 'extra'"),
        (["configuration"], "--mirror-targets is required"),
        (["configuration", "--mirror-targets="], "--mirror-targets is required"),
        (["configuration", "--mirror-targets", ","], "--mirror-targets is required"),
        (["configuration", "--mirror-targets=localhost:5000"], "is not a mirror target"),
        (["cleanup", "--addr=nowhere"], "--addr"),
        (["cleanup-wait", "--probe-endpoint="], "is not an endpoint"),
        (["doctor", "--image=busybox"], "no registry host in front"),
        (["--log-level=LOUD", "version"], "use one of DEBUG, INFO"),
        (["--nope", "version"], "unknown flag --nope before the command"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(speil_here: Speil, argv: list[str], words: str) -> None:
    code, out, err = speil_here(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


async def test_a_port_in_use_and_a_data_dir_that_can_not_be_written_are_one_line(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        common = ["--store-kind=oci-layout", f"--oci-layout-path={layout}", "--registry-addr=127.0.0.1:0"]
        for flag in ("--router-addr", "--metrics-addr", "--registry-addr"):
            others = [f"{one}=127.0.0.1:0" for one in ("--router-addr", "--metrics-addr") if one != flag]
            code, _, err = await speil("registry", *common, *others, f"{flag}=127.0.0.1:{port}")
            assert code == 2
            assert f"speil registry: {flag}: 127.0.0.1:{port} is in use" in err
    file = tmp_path / "file"
    file.write_text("x")
    code, _, err = await speil("registry", *common, "--router-addr=127.0.0.1:0", f"--data-dir={file}")
    assert code == 2
    assert "--data-dir" in err


async def test_an_environment_variable_counts_and_a_bad_one_is_named(tmp_path: Path) -> None:
    code, _, err = await speil("registry", MIRROR_RESOLVE_TIMEOUT="soon")
    assert code == 2
    assert "environment variable MIRROR_RESOLVE_TIMEOUT" in err
    directory = tmp_path / "certs.d"
    code, _, _ = await speil(
        "configuration", MIRROR_TARGETS="http://127.0.0.1:5000", CONTAINERD_REGISTRY_CONFIG_PATH=str(directory)
    )
    assert code == 0
    assert (directory / "_default" / "hosts.toml").exists()


async def test_the_old_generations_configuration_command(tmp_path: Path) -> None:
    code, _, err = await speil(
        "configuration", "--registries", "https://docker.io", "--mirror-registries", "http://127.0.0.1:30020",
        "--resolve-tags=false", "--append-mirrors=true", f"--containerd-registry-config-path={tmp_path}/certs.d",
    )  # fmt: skip
    assert code == 0
    assert "--registries is now called --mirrored-registries" in err
    assert "capabilities = ['pull']" in (tmp_path / "certs.d/docker.io/hosts.toml").read_text()


async def test_cleanup_restores_and_says_so_and_cleanup_wait_waits_for_it(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d"
    await speil(
        "configuration", "--mirror-targets=http://127.0.0.1:5000", f"--containerd-registry-config-path={directory}"
    )
    (port,) = free_ports("127.0.0.1", 1)
    waiting = ["cleanup-wait", f"--probe-endpoint=http://127.0.0.1:{port}", "--period=50ms", "--threshold=2"]
    async with running(*waiting) as waiter:
        cleaning = ["cleanup", f"--addr=127.0.0.1:{port}", f"--containerd-registry-config-path={directory}"]
        async with running(*cleaning) as cleaner:
            async with asyncio.timeout(SECONDS_MAX):
                assert await waiter.wait() == 0
            assert list(directory.iterdir()) == []
            cleaner.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SECONDS_MAX):
                assert await cleaner.wait() == 0


async def test_prepull_runs_until_it_is_ended() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", "prepull", stderr=asyncio.subprocess.PIPE, preexec_fn=_hear_interrupts
    )
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS_MAX):
        assert b"running until ended" in await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_the_first_node_of_a_prepull_ends_by_itself() -> None:
    async with asyncio.timeout(SECONDS_MAX):
        code, _, err = await speil("prepull", "--settle=10ms")
    assert (code, "running for a time" in err) == (0, True), err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["cleanup-wait"], 2, "give one of --daemonset and --probe-endpoint"),
        (["cleanup-wait", "--daemonset=x"], 2, "is not NAMESPACE/NAME"),
        (["prepull-wait"], 2, "--daemonset is required"),
        (["cleanup-wait", "--daemonset=a/b", "--timeout=100ms"], 1, "not a pod of a cluster"),
    ],
    ids=["nothing to wait for", "no namespace", "no DaemonSet", "not in a cluster"],
)
async def test_waiting_commands_say_what_is_missing(argv: list[str], code: int, words: str) -> None:
    found, _, err = await speil(*argv)
    assert (found, words in err) == (code, True), err


async def test_cleanup_without_an_address_restores_once_and_returns(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d"
    flag = f"--containerd-registry-config-path={directory}"
    for registries in ("_default", "https://docker.io,*"):
        code, _, _ = await speil(
            "configuration", "--mirror-targets=http://127.0.0.1:5000", f"--mirrored-registries={registries}", flag
        )
        assert code == 0
        assert (directory / "_default" / "hosts.toml").exists()
    for _ in range(2):
        code, _, _ = await speil("cleanup", flag)
        assert code == 0
        assert list(directory.iterdir()) == []
    code, _, err = await speil("cleanup", "--containerd-registry-config-path=/etc/hostname")
    assert (code, "nothing to restore" in err) == (0, True)


async def test_a_dry_run_prints_a_diff_and_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "certs.d"
    (directory / "docker.io").mkdir(parents=True)
    (directory / "docker.io" / "hosts.toml").write_text('[host."https://cache.test"]\n')
    code, out, _ = await speil(
        "configuration", "--mirror-targets=http://127.0.0.1:5000,http://127.0.0.1:5000/", "--prepend-existing",
        "--mirrored-registries=https://docker.io", f"--containerd-registry-config-path={directory}", "--dry-run",
    )  # fmt: skip
    assert code == 0
    assert out.startswith("--- a/docker.io/hosts.toml\n+++ b/docker.io/hosts.toml\n")
    assert out.count("+[host.'http://127.0.0.1:5000']") == 1
    assert [path.name for path in directory.iterdir()] == ["docker.io"]


async def test_a_directory_that_is_not_of_registries_is_named_with_what_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("version = 2\n")
    code, _, err = await speil(
        "configuration", "--mirror-targets=http://127.0.0.1:5000", f"--containerd-registry-config-path={tmp_path}"
    )
    assert code == 1
    assert f"{tmp_path} has config.toml" in err
    assert f"as {tmp_path}/certs.d" in err
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


async def test_a_node_serves_its_layout_tells_its_state_and_ends_on_sigterm(tmp_path: Path) -> None:
    image, layout = random_image(1), tmp_path / "layout"
    await write_layout(layout, image, "reg.test/a:1")
    async with (
        running_node(tmp_path, layout, f"--data-dir={tmp_path / 'data'}") as node,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{node.url}/v2/a/manifests/1?ns=reg.test") as response:
            assert await response.read() == image.blobs[image.index.digest]
        metrics = f"http://{node.host}:{node.metrics_port}"
        async with session.get(f"{metrics}/debug/state") as response:
            state = await response.json()
            assert (state["ready"], state["store_available"], state["requests_total"]) == (True, True, 1)
            assert state["recent_requests"][0]["key"] == "reg.test/a:1"
        async with session.get(f"{metrics}/debug/web/") as response:
            assert "Trace an image" in await response.text()
        async with session.get(f"{metrics}/metrics") as response:
            assert "speil_provided_keys" in await response.text()
        node.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS_MAX):
            assert await node.process.wait() == 0
    text = node.log.read_text()
    assert "Traceback" not in text
    assert "asked by the node" in text
    assert (tmp_path / "data" / "private.key").exists()


async def test_the_key_and_the_peers_survive_a_restart(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    async with running_node(tmp_path, layout) as other:
        seed = f"--static-bootstrap-peers=/ip4/{other.host}/tcp/{other.router_port}"
        data = f"--data-dir={tmp_path / 'data'}"
        names = []
        for flags in ([seed, data], [data]):
            async with running_node(tmp_path, layout, *flags) as node, aiohttp.ClientSession() as session:
                metrics = f"http://{node.host}:{node.metrics_port}"

                async def state(url: str = metrics, session: aiohttp.ClientSession = session) -> bool:
                    async with session.get(f"{url}/debug/state") as response:
                        found = await response.json()
                    if found["peers"]:
                        names.append(found["peer_id"])
                    return bool(found["peers"])

                await eventually(state, what="it has peers, the second time from those it knew")
        assert names[0] == names[-1]


@pytest.mark.long
async def test_the_demo_works_and_judges(tmp_path: Path) -> None:
    code, out, _ = await speil(
        "demo", "--layers=2", "--layer-mib=2", seconds_max=DEMO_SECONDS_MAX, TMPDIR=str(tmp_path)
    )
    assert code == 0, out
    assert re.search(r"from the upstream: \d\.\d\d to regiona and \d\.\d\d to regionb; no byte crossed", out)
    cells = [re.split(r"  +", line) for line in out.splitlines()]
    nodes = {row[0]: row for row in cells if row[0].startswith("127.31.") and len(row) == 6}
    assert len(nodes) == 6
    assert all(row[1] != "0 B" for row in nodes.values())
    assert sum(row[2] != "0 B" for row in nodes.values()) >= 4, "all pull at once, and all but one follow"
    regions = [row for row in cells if row[0] in ("regiona", "regionb") and len(row) == 10]
    assert [(row[0], row[2], row[8]) for row in regions] == [("regiona", "3", "0 B"), ("regionb", "3", "0 B")]
    assert all(0.99 <= float(row[7]) <= COPIES_MAX for row in regions), "one copy from the upstream for each region"
    assert all(row[3].endswith(" %") for row in regions)
    assert re.search(r"regiona-\d leads \d+\.\d s after the kill", out)
    assert "across the border: 404" in out
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
