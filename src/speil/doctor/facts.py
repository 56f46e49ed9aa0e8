"""Gathers facts about this node: containerd, its files, speil's ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speil.hosts_toml.judge import Judgement, judge
from speil.http1.client import Answer, HttpClient, HttpError
from speil.local_file import parse_json
from speil.setting import ListenAddress
from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient
from speil.store.containerd.inspect import ContainerdFacts, inspect

REQUEST_SECONDS_MAX = 3.0
ANSWER_BYTES_MAX = 16 << 20  # a node's state with all its peers has some MiB at most
DROP_IN_DIRECTORY = "conf.d"


@dataclass(frozen=True, slots=True)
class RegistryDirectory:
    """One directory below config_path, and how containerd reads its hosts.toml (None: it has none).

    `answers` are the status codes of speil's responses to /v2/ with the headers that containerd sends, by mirror.
    """

    name: str
    file: Path
    judgement: Judgement | None
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that `checks` looks at."""

    socket: str
    config_path: Path
    config_file: Path
    metrics_url: str
    mirror_urls: tuple[str, ...]
    containerd: ContainerdFacts | None = None
    containerd_error: str = ""
    config_exists: bool = False
    config_path_exists: bool = True
    config_imports: tuple[str, ...] = ()
    drop_ins: tuple[Path, ...] = ()
    directories: tuple[RegistryDirectory, ...] = ()
    mirrors: dict[str, int | None] = field(default_factory=dict)
    registry: int | None = None  # the status of the registry port, asked at its own address and not at a mirror's
    state: dict[str, Any] | None = None
    is_in_pod: bool = False  # files that are not mounted can't be seen, but may exist on the node

    @property
    def requests(self) -> int:
        """How many of the recent requests came from this node's containerd."""
        recent = (self.state or {}).get("recent_requests", [])
        return sum(request.get("client") == "node" for request in recent)

    def is_ours(self, host: str) -> bool:
        """Whether a host of a hosts.toml is this node's speil."""
        return host.rstrip("/") in self.mirror_urls


def local_url(address: ListenAddress) -> str:
    """The URL at which this node reaches a server that listens on `address`."""
    host = address.host if address.host not in ("", "0.0.0.0", "::") else "127.0.0.1"
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


async def gather(
    socket: str,
    namespace: str,
    config_path: Path,
    config_file: Path,
    mirrors: tuple[str, ...],
    metrics_url: str,
    registry_url: str = "",
    *,
    is_in_pod: bool = False,
) -> Facts:
    """Gather everything. What can't be read is a fact too and raises nothing."""
    containerd, error = await _inspect(socket, namespace, str(config_file))
    drop_in_directory = config_file.parent / DROP_IN_DIRECTORY
    async with asyncio.TaskGroup() as group:
        statuses = [group.create_task(_status(f"{url}/livez")) for url in mirrors]
        directories = [group.create_task(_ask_as_containerd(one, mirrors)) for one in _directories(config_path)]
    return Facts(
        socket=socket,
        config_path=config_path,
        config_file=config_file,
        metrics_url=metrics_url,
        mirror_urls=mirrors,
        containerd=containerd,
        containerd_error=error,
        config_exists=config_file.is_file(),
        config_path_exists=config_path.is_dir(),
        config_imports=containerd.imports if containerd else (),
        drop_ins=tuple(sorted(drop_in_directory.glob("*.toml"))),
        directories=tuple(task.result() for task in directories),
        mirrors={url: task.result() for url, task in zip(mirrors, statuses, strict=True)},
        registry=await _status(f"{registry_url}/livez") if registry_url else None,
        state=await state(metrics_url),
        is_in_pod=is_in_pod,
    )


async def state(metrics_url: str) -> dict[str, Any] | None:
    """The node's `/debug/state`; None where it does not answer."""
    try:
        found = parse_json((await _get(f"{metrics_url}/debug/state")).body)
    except (HttpError, ValueError):
        return None
    return found if isinstance(found, dict) else None


async def _inspect(socket: str, namespace: str, config_file: str) -> tuple[ContainerdFacts | None, str]:
    client = ContainerdClient(socket, namespace)
    try:
        return await inspect(client, config_file), ""
    except StoreError as error:
        return None, str(error)
    finally:
        client.close()


async def _ask_as_containerd(one: RegistryDirectory, mirrors: tuple[str, ...]) -> RegistryDirectory:
    """The directory with the answers of this node's mirrors: a token or password in the file may be outdated."""
    if one.judgement is None:
        return one
    answers: dict[str, int] = {}
    for host in one.judgement.hosts:
        if (url := host.rstrip("/")) in mirrors:
            status = await _status(f"{url}/v2/", one.judgement.headers.get(host, {}))
            answers |= {host: status} if status is not None else {}
    return replace(one, answers=answers)


async def _status(url: str, headers: Mapping[str, str] | None = None) -> int | None:
    try:
        return (await _get(url, headers)).status
    except HttpError:  # also for a header that can't be sent
        return None


async def _get(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX)
    try:
        return await client.request("GET", url, headers=headers, answer_bytes_max=ANSWER_BYTES_MAX)
    finally:
        await client.close()


def _directories(config_path: Path) -> list[RegistryDirectory]:
    if not config_path.is_dir():
        return []
    found = []
    for directory in sorted(config_path.iterdir()):
        if directory.is_dir() and not directory.name.startswith(".") and directory.name != "_backup":
            file = directory / "hosts.toml"
            found.append(RegistryDirectory(directory.name, file, _judge(file)))
    return found


def _judge(file: Path) -> Judgement | None:
    try:
        return judge(file.read_text())
    except OSError:
        return None
    except UnicodeDecodeError:
        return Judgement((), ("it is not UTF-8: containerd drops every mirror",))
