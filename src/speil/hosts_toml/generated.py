"""Recognises the hosts that Spegel or an early speil wrote in a hosts.toml, by their form."""

from __future__ import annotations

import re
from typing import Any

from speil.hosts_toml.document import DIAL_TIMEOUT
from speil.hosts_toml.targets import HostsTomlError, check_target

_EMPTY_HOST_TABLE = re.compile(r"^\[host\]\s*$", re.MULTILINE)


def generated_targets(text: str, document: dict[str, Any]) -> tuple[str, ...]:
    """The URLs of the hosts in this form.

    Spegel 0.0.26 and later write a dial timeout for each host. Earlier versions write an empty [host] table, and only
    capabilities for each host.
    """
    hosts = document.get("host", {})
    old = _EMPTY_HOST_TABLE.search(text) is not None
    if not isinstance(hosts, dict):
        return ()
    return tuple(url for url, table in hosts.items() if isinstance(table, dict) and _is_generated(url, table, old))


def _is_generated(url: str, table: dict[str, Any], old: bool) -> bool:
    try:
        check_target(url)
    except HostsTomlError:
        return False
    if table.get("capabilities") not in (["pull", "resolve"], ["pull"]):
        return False
    keys = set(table) - {"header"}
    timed = keys == {"capabilities", "dial_timeout"} and table["dial_timeout"] == DIAL_TIMEOUT
    return timed or (old and keys == {"capabilities"} and url.startswith("http://"))
