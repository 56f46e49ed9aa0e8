"""Ctrl-C on a terminal ends long commands at once, wherever they are, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from speil.cli import app
from speil.cli.running import run_async
from tests.shell.terminals import check_interrupt

SPEIL = (sys.executable, "-m", "speil")
# a DNS server that does not answer: the resolver's thread can't be cancelled
HANGING_RESOLVER = "import socket, sys, time; socket.getaddrinfo = lambda *_, **__: time.sleep(600)"
DEMO = (*SPEIL, "demo", "--layers=2", "--layer-mib=2")


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "when",
    [
        "making layers: 0",
        pytest.param("starting nodes: ", marks=pytest.mark.long),
        pytest.param("pull at once", marks=pytest.mark.long),
        pytest.param("is killed in the", marks=pytest.mark.long),
        pytest.param("waiting for the next leader", marks=pytest.mark.long),
    ],
)
def test_the_demo(when: str, tmp_path: Path) -> None:
    shown = check_interrupt(DEMO, when, tmp_path)
    assert "speil demo: interrupted; its nodes have ended and its files are gone" in shown


def test_a_region_that_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a.lease").write_text("{}")
    files = f"--lease-files={tmp_path}/a.lease"
    check_interrupt([*SPEIL, "region", "verify", "--observe=1h", files], "traffic: 0 of 3600 s", tmp_path)


def test_the_page_of_all_regions(tmp_path: Path) -> None:
    (tmp_path / "a.lease").write_text("{}")
    argv = [*SPEIL, "region", "web", "--no-browser", f"--lease-files={tmp_path}/a.lease"]
    check_interrupt(argv, "all regions: http://", tmp_path)


@pytest.mark.parametrize(
    ("command", "when"),
    [(("trace", "a/b"), "tracing docker.io/a/b:latest on the nodes: 0 of 1"), (("verify",), "reading nodes: 0 of 1")],
)
def test_nodes_that_do_not_answer(command: tuple[str, ...], when: str, tmp_path: Path) -> None:
    with silent_server() as url:
        check_interrupt([*SPEIL, "region", *command, f"--metrics-urls={url}"], when, tmp_path)


def test_an_api_server_that_does_not_answer(tmp_path: Path) -> None:
    with silent_server() as url:
        (tmp_path / "kubeconfig").write_text(
            f"{{current-context: x, contexts: [{{name: x, context: {{cluster: x, user: x}}}}],"
            f" clusters: [{{name: x, cluster: {{server: '{url}'}}}}], users: [{{name: x, user: {{}}}}]}}"
        )
        argv = [*SPEIL, "region", "doctor", "node-1", f"--kubeconfig={tmp_path}/kubeconfig"]
        check_interrupt(argv, "looking for the pod of node node-1", tmp_path)


def test_a_name_that_is_being_resolved(tmp_path: Path) -> None:
    program = f"{HANGING_RESOLVER}; from speil.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", program, "region", "trace", "a/b", "--metrics-urls=http://node:9090"]
    check_interrupt(argv, "0 of 1", tmp_path)


def test_each_command_with_a_bar_can_be_quiet() -> None:
    for command in app.COMMANDS:
        source = Path(app.__file__).with_name(f"{command.module}.py").read_text()
        if re.search(r"\bProgress\(", source):
            assert "quiet=settings.quiet" in source, command.name


def test_an_interrupt_that_is_raised_in_the_event_loop_cleans_up_too() -> None:
    cleaned_up: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append("child")

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            try:
                group.create_task(child())
                await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(interrupt)
                await asyncio.Event().wait()
            finally:
                cleaned_up.append("main")

    with pytest.raises(KeyboardInterrupt):
        run_async(main())
    assert sorted(cleaned_up) == ["child", "main"]
    loops[0].close()  # the process of a command ends without it


TWICE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests may ignore it
from speil.cli import app, main, signals

def interrupt(*arguments):
    os.kill(os.getpid(), signal.SIGINT)

step, name = getattr(signals, sys.argv[1]), sys.argv[1]
setattr(signals, name, lambda *arguments: (interrupt(), step(*arguments))[1])
app._main = interrupt
sys.exit(main())
"""


@pytest.mark.parametrize("step", ["ignore_more", "exit_code", "leave"])
def test_a_second_interrupt_behind_the_first_shows_no_traceback(step: str) -> None:
    run = subprocess.run([sys.executable, "-c", TWICE, step], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (130, "")
