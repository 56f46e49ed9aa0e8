"""Checks a plan before it is put in place: containerd must ask speil first, and then the same hosts as before."""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from speil.host_config.errors import HostConfigError
from speil.host_config.folder import UnreadableError, look
from speil.host_config.nodes import Tree, children
from speil.host_config.plan import Plan, registry_of
from speil.hosts_toml.containerd import (
    DEFAULT_DIRECTORY,
    HOSTS_FILE,
    Folder,
    Generation,
    Host,
    RejectedError,
    directories_of,
    read_hosts,
    resolve,
)
from speil.hosts_toml.document import Mirrors
from speil.hosts_toml.targets import once_each, same_target


def prove(plan: Plan, operator: Tree, root: Path, mirrors: Mirrors) -> None:
    """Check `plan` by the rules of each containerd generation.

    Raises HostConfigError if containerd would read a file differently than intended. A directory in `plan.unnamed` is
    left unchanged instead.
    """
    before, after = folders(operator, root), folders(plan.tree, root)
    for path, merged in list(plan.written.items()):
        name = path.partition("/")[0]
        try:
            _prove_one(root / path, name, before, after, root, mirrors, merged=merged)
        except HostConfigError as error:
            if name not in plan.unnamed:
                raise
            plan.leave(name, operator, str(error))
    _prove_others(plan, before, root, mirrors)


def _prove_one(
    file: Path,
    name: str,
    before: dict[str, Folder],
    after: dict[str, Folder],
    root: Path,
    mirrors: Mirrors,
    *,
    merged: bool,
) -> None:
    for generation in Generation:
        found = resolve(after, registry_of(name), generation, str(root))
        was = resolve(before, registry_of(name), generation, str(root))
        if _rejected(after[name], generation):
            if merged and found == was and any(not _rejected(after[name], one) for one in Generation):
                continue  # this generation rejected the operator's file before, too
            raise _wrong(file, generation, f"{_rejected(after[name], generation)}")
        count = len(once_each(mirrors.targets))
        if not _are(found[:count], mirrors):
            raise _wrong(file, generation, "speil is not asked first")
        source = before.get(name, before.get(DEFAULT_DIRECTORY, {}))
        if _rejected(source, generation) or (_rejected(source, Generation.V1) and not _says(source)):
            # containerd 1.6 ignores a file without hosts; with our hosts in it, 1.6 uses its server line too.
            # If the file has no values at all, 1.6 uses the certificates beside it and 2.x does not; now both do.
            continue
        kept = [host for host in was[:-1] if not _is_ours(host, mirrors)] + was[-1:]
        if merged and found[count:] != kept:
            raise _wrong(file, generation, f"it asks {_shown(found[count:])} instead of {_shown(kept)}")


def _prove_others(plan: Plan, before: dict[str, Folder], root: Path, mirrors: Mirrors) -> None:
    """Check the directories that are not written: links in them may lead to files that are."""
    after = folders(plan.tree, root)
    for name in sorted(before.keys() & after.keys() - {path.partition("/")[0] for path in plan.written}):
        if name != next((one for one in directories_of(registry_of(name)) if one in before), None):
            continue  # containerd reads another directory for that registry
        for generation in Generation:
            was, found = (resolve(one, registry_of(name), generation, str(root)) for one in (before, after))
            if not _rejected(before[name], generation) and _without(found, mirrors) != _without(was, mirrors):
                raise HostConfigError(
                    f"{root / name} is, or holds, a link to a file to be written for another registry. containerd "
                    f"would ask {_shown(found)} instead of {_shown(was)}: replace the link by a copy"
                )


def folders(tree: Tree, root: Path) -> dict[str, Folder]:
    """The directories that containerd sees in a tree, without those that this process can't read."""
    found: dict[str, Folder] = {}
    for name in children(tree, ""):
        try:
            folder = look(tree, root, name)
        except (UnreadableError, HostConfigError):
            continue
        if folder is not None:
            found[name] = folder.files
    return found


def _says(folder: Folder) -> bool:
    """Whether a valid hosts.toml has any value, not only comments."""
    return bool(tomllib.loads(folder[HOSTS_FILE].decode()))


def _rejected(folder: Folder, generation: Generation) -> str:
    text = folder.get(HOSTS_FILE, b"")
    try:
        if text:
            read_hosts(text.decode(), "/", generation)
    except (RejectedError, UnicodeDecodeError) as error:
        return str(error)
    return ""


def _are(hosts: list[Host], mirrors: Mirrors) -> bool:
    wanted = frozenset({"pull", "resolve"} if mirrors.resolve_tags else {"pull"})
    header = tuple(sorted((name, (value,)) for name, value in mirrors.headers))
    return len(hosts) == len(once_each(mirrors.targets)) and all(
        same_target(_plain(host), target)
        and urlsplit(target).netloc == host.host
        and host.capabilities == wanted
        and host.header == header
        and not (host.skip_verify or host.ca or host.client)
        for host, target in zip(hosts, once_each(mirrors.targets), strict=True)
    )


def _is_ours(host: Host, mirrors: Mirrors) -> bool:
    return any(same_target(_plain(host), target) for target in mirrors.targets)


def _without(hosts: list[Host], mirrors: Mirrors) -> list[Host]:
    return [host for host in hosts if not _is_ours(host, mirrors)]


def _plain(host: Host) -> str:
    """The URL as written in a hosts.toml."""
    return host.url.removesuffix("/v2")


def _shown(hosts: list[Host]) -> str:
    return ", ".join(host.url for host in hosts) or "nothing"


def _wrong(file: Path, generation: Generation, reason: str) -> HostConfigError:
    return HostConfigError(
        f"{file} as speil would write it is not read as intended by {generation.value}: {reason}. "
        "Correct the existing file, or remove it"
    )
