"""Finds the problems of a hosts.toml that make containerd drop its mirrors silently. For `speil doctor`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speil.hosts_toml.containerd import Generation, RejectedError, read_hosts
from speil.hosts_toml.document import HostsTomlError, parse

KNOWN_CAPABILITIES = {"pull", "resolve", "push", "referrers"}  # referrers: containerd 2.2 and later
TLS_KEYS = {"ca", "client", "skip_verify"}
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`hosts`: the mirrors in order. `problems`: why containerd would not use them; empty if it would.

    `headers`: the headers that containerd sends to each mirror; of several values of a name, the first.
    """

    hosts: tuple[str, ...]
    problems: tuple[str, ...]
    headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)


def judge(text: str) -> Judgement:
    """Check the text of a hosts.toml. Never raises."""
    if not text.strip():
        return Judgement((), ("the file is empty: containerd 2.x drops every mirror",))
    try:
        document = parse(text)
    except HostsTomlError as error:
        return Judgement((), (f"{error}: containerd drops every mirror",))
    hosts: Any = document.get("host", {})
    if not isinstance(hosts, dict) or not hosts:
        return Judgement((), ("it has no [host] table: containerd 1.6 rejects the file, 2.x asks only the registry",))
    problems = [problem for url, table in hosts.items() for problem in _problems(url, table)]
    if not problems and len(rejections := _rejections(text)) == len(Generation):
        problems.append(f"{rejections[-1]}: containerd drops every mirror")
    return Judgement(tuple(hosts), tuple(problems), {url: _headers(table) for url, table in hosts.items()})


def _headers(table: Any) -> dict[str, str]:
    header = table.get("header") if isinstance(table, dict) else None
    found = {}
    for name, value in header.items() if isinstance(header, dict) else ():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str):
            found[name] = first
    return found


def _rejections(text: str) -> list[str]:
    found = []
    for generation in Generation:
        try:
            read_hosts(text, "/", generation)
        except RejectedError as error:
            found.append(str(error))
    return found


def _problems(url: str, table: Any) -> list[str]:
    if not isinstance(table, dict):
        return [f"{url}: not a table"]
    found = []
    if unknown := [str(one) for one in table.get("capabilities", []) if one not in KNOWN_CAPABILITIES]:
        found.append(f"{url}: unknown capability {', '.join(unknown)}: containerd drops the mirror")
    if not re.match(r"https?://", url):
        found.append(f"{url}: no scheme, so containerd uses https")
    if url.startswith("http://") and (keys := TLS_KEYS & table.keys()):
        found.append(f"{url}: {', '.join(sorted(keys))} on an http host makes containerd use TLS")
    if (timeout := table.get("dial_timeout")) is not None and not _DURATION.fullmatch(str(timeout)):
        found.append(f"{url}: dial_timeout {timeout!r} is not a duration: containerd drops the mirror")
    return found
