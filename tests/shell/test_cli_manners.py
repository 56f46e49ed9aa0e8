"""The command line as people expect it: help, names, pipes that close, signals, the environment of a CI system."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from speil import config
from speil.cli import app, program
from speil.config import ConfigError, NodeSettings
from speil.observe.settings import LogSettings
from speil.setting import SettingError, declared, socket_path
from speil.testing.eventually import eventually
from tests.shell.conftest import Speil
from tests.shell.test_cli import DEMO_SECONDS_MAX, SECONDS_MAX, _hear_interrupts, speil

MODULES_MAX = 110  # of an interpreter that prints the overview: 67 on Python 3.11, of which 45 are the interpreter's
HEAVY = ("aiohttp", "asyncio", "cryptography", "grpclib", "google", "prometheus_client", "yaml", "ssl", "speil.config")
BY_HAND = [command for command in app.COMMANDS if command.by_hand]
GROUPED = [command.name for command in app.COMMANDS if command.name.startswith("region ")]


# --- help and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--help"], ["-h"], [], ["help"], ["region", "--help"], ["-V"], ["regstry"]])
def test_an_overview_imports_next_to_nothing(argv: list[str]) -> None:
    program = (
        "import sys, io, json; from speil.cli.app import main; out, sys.stdout = sys.stdout, io.StringIO();"
        f"main({argv!r}); print(json.dumps(sorted(sys.modules)), file=out)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    if argv != ["-V"]:  # which prints by a command, and so reads settings
        assert (
            len(modules) - len([name for name in modules if name == "json" or name.startswith("json.")]) <= MODULES_MAX
        )
        assert [name for name in HEAVY if name in modules] == []
    assert "aiohttp" not in modules


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--help"], ["usage: speil COMMAND", "configuration", "region verify"]),
        (["-h"], ["usage: speil COMMAND"]),
        (["help"], ["usage: speil COMMAND"]),
        (["--log-level=DEBUG", "help"], ["usage: speil COMMAND"]),
        (["help", "region"], ["usage: speil region COMMAND", *GROUPED]),
        (["region", "--help"], ["usage: speil region COMMAND", *GROUPED]),
        (["region", "-h"], ["usage: speil region COMMAND", *GROUPED]),
        (["region", "help"], ["usage: speil region COMMAND", *GROUPED]),
        (["--help", "region"], ["usage: speil region COMMAND", *GROUPED]),
        (["help", "registry"], ["usage: speil registry", "--mirror-resolve-timeout <duration>"]),
        (["--help", "registry"], ["usage: speil registry"]),
        (["registry", "-h"], ["usage: speil registry"]),
        (["help", "region", "status"], ["usage: speil region status"]),
        (["region", "help", "status"], ["usage: speil region status"]),
        (["region", "status", "--help"], ["usage: speil region status"]),
        (["help", "help"], ["usage: speil COMMAND"]),
        (["-V"], ["speil "]),
        (["--version"], ["speil "]),
        (["version"], ["speil "]),
        (["help", "version"], ["usage: speil version", "SPEIL_FORMAT"]),
    ],
)
def test_help_and_version_in_all_forms(speil_here: Speil, argv: list[str], words: list[str]) -> None:
    code, out, err = speil_here(*argv)
    assert (code, err) == (0, "")
    for word in words:
        assert word in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["regstry"], "unknown command 'regstry', did you mean registry?"),
        (["stauts"], "unknown command 'stauts', did you mean region status?"),
        (["regoin"], "unknown command 'regoin', did you mean region?"),
        (["region", "stauts"], "unknown command 'region stauts', did you mean region status?"),
        (["region", "xyzzy"], "unknown command 'region xyzzy'"),
        (["help", "regstry"], "did you mean registry?"),
        (["help", "region", "stauts"], "did you mean region status?"),
        (
            ["region"],
            "region is a group of commands: region plan, region status, region verify, region web",
        ),
        (["xyzzy"], "--help lists the commands"),
        (["--log-levle=DEBUG", "version"], "unknown flag --log-levle before the command, did you mean --log-level?"),
        (["-x"], "unknown flag -x before the command"),
        (["version", "--formt=json"], "unknown flag --formt, did you mean --format?"),
        (["region", "status", "--intervall", "1s"], "did you mean --interval?"),
        (["doctor", "--containerd-sock=tcp://10.0.0.1:1"], "is not a socket's path"),
    ],
)
def test_what_is_not_known_names_what_is_near(speil_here: Speil, argv: list[str], words: str) -> None:
    code, out, err = speil_here(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_the_flags_before_a_command_are_those_of_logging() -> None:
    assert tuple(setting.flag for setting in declared(LogSettings)) == program.GLOBAL_FLAGS


# --- values -------------------------------------------------------------------------------------------------------


def _node(*argv: str) -> NodeSettings:
    arguments = config.split_arguments("registry", argv, config.all_settings(NodeSettings))
    assert not arguments.positional
    return config.build(NodeSettings, arguments, {})


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--debug-web-enabled"], True),
        (["--debug-web-enabled", "true"], True),
        (["--debug-web-enabled", "false"], False),
        (["--debug-web-enabled", "0"], False),
        (["--debug-web-enabled=false"], False),
        (["--debug-web-enabled", "--zero-copy", "false"], True),
        (["--debug-web-enabled=false", "--debug-web-enabled"], True),
    ],
)
def test_a_boolean_flag_in_all_its_forms(argv: list[str], value: bool) -> None:
    assert _node(*argv).mirror.debug_web_enabled is value


def test_what_is_no_boolean_behind_a_boolean_flag_is_refused() -> None:
    arguments = config.split_arguments("registry", ["--debug-web-enabled", "no"], config.all_settings(NodeSettings))
    assert arguments.positional == ["no"]
    with pytest.raises(ConfigError, match="use true or false"):
        _node("--debug-web-enabled=no")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/run/containerd/containerd.sock", "/run/containerd/containerd.sock"),
        ("unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"),
        ("unix:/run/containerd/containerd.sock", "/run/containerd/containerd.sock"),
        ("run/containerd.sock", "run/containerd.sock"),
        ("./a:b.sock", "./a:b.sock"),
        ("unix://run/containerd.sock", None),
        ("unix:run.sock", None),
        ("tcp://10.0.0.1:1234", None),
        ("npipe:////./pipe/containerd", None),
        ("http://localhost", None),
    ],
)
def test_a_socket_with_and_without_a_scheme(text: str, path: str | None) -> None:
    if path is not None:
        assert socket_path.parse(text) == path
        assert _node("--containerd-sock", text).store.containerd_sock == path
        return
    with pytest.raises(SettingError, match="is not a socket's path: write it like"):
        socket_path.parse(text)


# --- the environment of a CI system -------------------------------------------------------------------------------

# what GitHub, GitLab, Jenkins, Tekton, make and shells set or people's pipelines do, under names of ours
_NAMES = "OUTPUT IMAGE NODES REGION REGIONS ZONE FORMAT LAYERS WATCH INTERVAL OBSERVE LOG_LEVEL LOG_FORMAT"
COMMON = dict.fromkeys(re.findall(r"\w+", _NAMES), "something/else")


def _settings(command: program.Command) -> type:
    kind: type = importlib.import_module(f"speil.cli.{command.module}").Settings
    return kind


@pytest.mark.parametrize("command", BY_HAND, ids=lambda command: command.name)
def test_common_names_are_not_read_by_commands_of_people(command: program.Command) -> None:
    kind = _settings(command)
    known = config.all_settings(kind)
    places = [(*one.kind.choices, "x")[0] for one in known if one.is_positional]
    nothing = config.split_arguments(command.name, places, known)
    for parts in (kind, LogSettings):
        assert config.build(parts, nothing, COMMON, by_hand=True) == config.build(parts, nothing, {}, by_hand=True)
    for setting in (*config.all_settings(kind), *declared(LogSettings)):
        variable = setting.variable(by_hand=True)
        assert variable not in COMMON
        assert variable in (setting.env, f"SPEIL_{setting.env}")
        assert (variable == setting.env) == ("_" in setting.name and setting.env not in COMMON)


@pytest.mark.parametrize("name", ["registry", "configuration", "cleanup", "cleanup-wait"])
def test_the_commands_of_charts_keep_spegels_names(name: str) -> None:
    (command,) = (one for one in app.COMMANDS if one.name == name)
    assert not command.by_hand
    for setting in (*config.all_settings(_settings(command)), *declared(LogSettings)):
        assert setting.variable(by_hand=False) == setting.env == setting.flag[2:].upper().replace("-", "_")


async def test_a_pipelines_variables_change_nothing_and_ours_do() -> None:
    code, out, err = await speil("version", seconds_max=SECONDS_MAX, **COMMON)
    assert (code, err) == (0, "")
    assert out.startswith("speil ")
    code, out, _ = await speil("version", seconds_max=SECONDS_MAX, **COMMON, SPEIL_FORMAT="json")
    assert code == 0
    assert json.loads(out)["version"]
    code, _, err = await speil("version", SPEIL_FORMAT="xml")
    assert code == 2
    assert "environment variable SPEIL_FORMAT: 'xml'" in err
    code, _, err = await speil("demo", SPEIL_NODES="2", NODES="5")
    assert (code, "--nodes must be between" in err) == (2, True)
    code, _, err = await speil("version", SPEIL_LOG_LEVEL="DEBUG", FORMAT="json")
    assert "environment variable FORMAT is not read by this command, SPEIL_FORMAT is" in err


# --- pipes that close ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [["-h"], ["registry", "-h"], ["version"], ["help", "region"], ["region", "plan", "--regions=a,b"]],
)
def test_a_reader_that_has_seen_enough_is_no_failure(argv: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-m", "speil", *argv], stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


async def test_a_watch_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    lease = tmp_path / "a.lease"
    lease.write_text("{}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", "region", "status", "--watch", "--interval=10ms", f"--lease-files={lease}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS_MAX):
        assert await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert await process.wait() == 141
    assert await process.stderr.read() == b""


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "speil", "-h"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"speil: the output can't be written: No space left on device\n")


def test_a_full_disk_is_no_bug_where_each_line_is_written_at_once() -> None:
    with Path("/dev/full").open("wb") as full:
        argv = [sys.executable, "-u", "-m", "speil", "version"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, check=False)
    line = b"speil version: the output can't be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)


# --- signals ------------------------------------------------------------------------------------------------------


def _processes_of(directory: Path) -> list[str]:
    """Command lines of processes that have to do with a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(directory) in line:
                found.append(line)
    return found


def _deaf_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("when", "number", "code", "deaf"),
    [
        ("making two images", signal.SIGINT, 130, False),
        ("making two images", signal.SIGTERM, 143, True),  # deaf to SIGINT: started in the background of a shell
        pytest.param("starting 3 nodes", signal.SIGTERM, 143, False, marks=pytest.mark.long),
        pytest.param("pull at once", signal.SIGHUP, 129, False, marks=pytest.mark.long),
        pytest.param("is killed in the", signal.SIGINT, 130, False, marks=pytest.mark.long),
    ],
)
async def test_the_demo_ends_on_signals_and_takes_everything_back(
    tmp_path: Path, when: str, number: signal.Signals, code: int, deaf: bool
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "speil", "demo", "--layers=2", "--layer-mib=2",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=_deaf_to_interrupts if deaf else _hear_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEMO_SECONDS_MAX):
            said = b""
            while when.encode() not in said:
                line = await process.stdout.readline()
                assert line, f"it ended before: {said.decode()}"
                said += line
            process.send_signal(number)
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code
    assert b"Traceback" not in err
    assert err.strip() == b"speil demo: interrupted; its nodes have ended and its files are gone"
    assert list(tmp_path.iterdir()) == []
    assert _processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("argv", "number", "codes"),
    [
        (["cleanup-wait", "--probe-endpoint=http://127.0.0.1:1"], signal.SIGTERM, {143}),
        (["region", "status", "--watch", "--lease-files={dir}/a.lease"], signal.SIGTERM, {143}),
        (["region", "status", "--watch", "--lease-files={dir}/a.lease"], signal.SIGINT, {130}),
        (["region", "verify", "--observe=1h", "--lease-files={dir}/a.lease"], signal.SIGTERM, {143}),
        (["cleanup", "--addr=127.0.0.1:0", "--containerd-registry-config-path={dir}/certs.d"], signal.SIGHUP, {0, 129}),
    ],
)
async def test_commands_end_on_signals_and_leave_nothing(
    tmp_path: Path, argv: list[str], number: signal.Signals, codes: set[int]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "a.lease").write_text("{}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", *(item.format(dir=tmp_path) for item in argv),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=_hear_interrupts,
        env={**os.environ, "TMPDIR": str(temporary), "SPEIL_LOG_LEVEL": "DEBUG"},
    )  # fmt: skip
    # past the interpreter's own start, from where on it is ours how a signal ends it
    await eventually(lambda: _handles(process.pid, signal.SIGHUP), what="it handles signals")
    process.send_signal(number)
    async with asyncio.timeout(SECONDS_MAX):
        _, err = await process.communicate()
    assert process.returncode in codes
    assert b"Traceback" not in err
    assert list(temporary.iterdir()) == []


def _handles(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)
