"""Computes the new directory: the operator's tree, with speil in front of the mirrored registries."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from speil.host_config.errors import HostConfigError
from speil.host_config.folder import Found, UnreadableError, look
from speil.host_config.nodes import Kind, Node, Tree, children, follow
from speil.hosts_toml.containerd import (
    DEFAULT_DIRECTORY,
    HOSTS_FILE,
    Generation,
    RejectedError,
    directories_of,
    is_localhost,
    read_hosts,
)
from speil.hosts_toml.document import HostsTomlError, Mirrors, moved, parse, render
from speil.oci.reference import is_registry


@dataclass(slots=True)
class Plan:
    """The new directory, and what speil wrote in it.

    `tree`: the new directory, without backup and record. `written`: the paths of our hosts.toml files; True if the file
    also has lines of the operator. `made`: directories ("" as target) and links (with their target) that speil creates.
    `unnamed`: directories that are written only because all registries are mirrored; a problem there is not an error.
    `notes`: messages for the operator about results that the settings do not suggest.
    """

    tree: Tree
    written: dict[str, bool] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def leave(self, name: str, operator: Tree, reason: str) -> None:
        """Leave the operator's directory `name` unchanged, and add `reason` to the notes."""

        def is_inside(path: str) -> bool:
            return path.partition("/")[0] == name

        self.tree = {path: node for path, node in self.tree.items() if not is_inside(path)}
        self.tree |= {path: node for path, node in operator.items() if is_inside(path)}
        self.written = {path: merged for path, merged in self.written.items() if not is_inside(path)}
        self.made = {path: target for path, target in self.made.items() if not is_inside(path)}
        self.notes.append(f"{reason}; until then it stays unchanged, without speil in front")


def instead(operator: Tree, root: Path, registries: tuple[str, ...], mirrors: Mirrors) -> Plan:
    """The plan without --prepend-existing, as Spegel does it: each directory has our hosts.toml alone.

    If all registries are mirrored, the other directories are removed; the backup has them.
    """
    plan = Plan({})
    names = {_name_for(operator, root, url, plan): url for url in registries}
    if "" not in registries:
        plan.tree = {path: node for path, node in operator.items() if path.split("/")[0] not in names}
    for name, url in names.items():
        _make_directory(plan, name)
        _put(plan, f"{name}/{HOSTS_FILE}", render(url, mirrors), mirrors, None)
    return plan


def in_front(operator: Tree, root: Path, registries: tuple[str, ...], mirrors: Mirrors) -> Plan:
    """The plan with --prepend-existing: our hosts come first, then what containerd would ask without speil.

    containerd ignores `_default` for a registry with its own directory. So a new directory also gets the hosts of
    `_default`. And if all registries are mirrored, speil is added in each existing directory too.
    """
    plan = Plan(dict(operator))
    names = {_name_for(operator, root, url, plan): url for url in registries}
    if "" in registries:
        for name in children(operator, ""):
            if operator[name].kind is not Kind.FILE and is_registry(registry_of(name)):
                plan.unnamed |= {name} - names.keys()
                names.setdefault(name, "")
    for name, url in names.items():
        try:
            _write_in_front(plan, operator, root, name, url, mirrors)
        except UnreadableError as error:
            if url:
                raise HostConfigError(
                    f"{error}: speil can't be put in front of it. Mount that path at the same place, "
                    "or replace the link by a file"
                ) from error
            plan.notes.append(f"{error}: it stays unchanged, without speil in front")
        except HostConfigError as error:
            if name not in plan.unnamed:
                raise
            plan.leave(name, operator, str(error))
    return plan


def _write_in_front(plan: Plan, operator: Tree, root: Path, name: str, url: str, mirrors: Mirrors) -> None:
    found, source = look(operator, root, name), name
    if found is None and name != DEFAULT_DIRECTORY:
        found, source = look(operator, root, DEFAULT_DIRECTORY), DEFAULT_DIRECTORY
    if found is None:
        found, source = Found({}), name
    prefix = "" if source == name else f"../{source}/"
    text = _text(found, root / source / HOSTS_FILE, prefix, url, mirrors)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HostConfigError(
            f"{root / source} has a certificate whose name is not UTF-8, which a hosts.toml can't contain: rename it"
        ) from error
    node = operator.get(name)
    if node is None or node.kind is not Kind.DIRECTORY:
        _make_directory(plan, name)
        if node is not None and source == name and follow(operator, root, name) is not None:
            for one in sorted({*found.files, *found.keys} - {HOSTS_FILE}):
                target = f"{node.target}/{one}" if node.target.startswith("/") else f"../{node.target}/{one}"
                plan.tree[f"{name}/{one}"] = Node(Kind.LINK, target=target)
                plan.made[f"{name}/{one}"] = target
    path = f"{name}/{HOSTS_FILE}"
    _put(plan, path, text, mirrors, operator.get(path), merged=bool(found.hosts.strip() or found.certificates))


def _text(found: Found, file: Path, prefix: str, url: str, mirrors: Mirrors) -> str:
    if found.hosts.startswith(codecs.BOM_UTF8):
        raise HostConfigError(f"{file} is not TOML: it begins with a byte order mark; correct or remove it")
    try:
        existing = found.hosts.decode()
    except UnicodeDecodeError as error:
        raise HostConfigError(f"{file} is not TOML: it is not in UTF-8; correct or remove it") from error
    try:
        if existing and parse(existing):
            _check(existing)
            return render(url, mirrors, moved(existing, prefix) if prefix else existing)
        certificates = {
            key: [f"{prefix}{one}" if isinstance(one, str) else [f"{prefix}{part}" for part in one] for one in value]
            for key, value in found.certificates.items()
        }
    except HostsTomlError as error:
        raise HostConfigError(f"{file} is {error}; correct or remove it") from error
    host = urlsplit(url).netloc
    # without a server line, containerd uses its own default, as it did without a file
    as_default = url.startswith("https://") and not is_localhost(host)
    is_said = as_default or not (certificates or existing or is_localhost(host))
    text = render(url if is_said else "", mirrors, certificates=certificates)
    return (
        f"{existing.strip()}\n{text}" if existing.strip() else text
    )  # an existing file without TOML values has only comments


def _check(existing: str) -> None:
    """Refuse a file that no containerd version accepts: its content has no effect today."""
    problems = []
    for generation in Generation:
        try:
            read_hosts(existing, "/", generation)
            return
        except RejectedError as error:
            problems.append(str(error))
    raise HostsTomlError(problems[-1] if problems[-1].startswith("not TOML") else f"rejected: {problems[-1]}")


def _name_for(operator: Tree, root: Path, url: str, plan: Plan) -> str:
    """The name of the directory that containerd will read for a registry URL."""
    if not url:
        return DEFAULT_DIRECTORY
    registry = urlsplit(url).netloc
    for name in directories_of(registry)[:-1]:
        if name in operator and follow(operator, root, name) is not None:
            if name != registry:
                plan.notes.append(f"{root / name} is what containerd reads for {registry}: speil writes there")
            return name
    return registry


def registry_of(name: str) -> str:
    """A registry whose directory is `name`; an invented one for `_default`."""
    if name == DEFAULT_DIRECTORY:
        return "registry.invalid"
    with_port = re.fullmatch(r"(.+)_([0-9]+)_", name)
    return f"{with_port[1]}:{with_port[2]}" if with_port else name


def _make_directory(plan: Plan, name: str) -> None:
    plan.tree[name] = Node(Kind.DIRECTORY)
    plan.made[name] = ""


def _put(plan: Plan, path: str, text: str, mirrors: Mirrors, before: Node | None, *, merged: bool = False) -> None:
    """Add a hosts.toml. With headers (a token, basic auth) only root, so containerd, may read it."""
    mode = 0o644
    if before is not None and before.kind is Kind.FILE and before.source is not None:
        mode = before.source.stat().st_mode & 0o777
    plan.tree[path] = Node(Kind.FILE, data=text.encode(), mode=0o600 if mirrors.headers else mode)
    plan.written[path] = merged
