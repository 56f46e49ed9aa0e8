"""The operations of `speil configuration` and `speil cleanup` on containerd's hosts.toml directory.

Each run starts from the operator's tree: the current directory without what the last run wrote. `_backup` has a
complete copy of it, and the record says what speil wrote. `cleanup` puts the operator's tree back.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from speil.host_config import diff as diffs
from speil.host_config.errors import HostConfigError
from speil.host_config.guard import check_mounts, check_path, check_tree
from speil.host_config.lock import locked
from speil.host_config.nodes import Kind, Node, Tree, scan
from speil.host_config.operator import BACKUP, operators_tree, was_configured
from speil.host_config.plan import Plan, in_front, instead
from speil.host_config.proof import prove
from speil.host_config.record import RECORD, Record, Written
from speil.host_config.switch import entries, leftovers, replace
from speil.host_config.write import write
from speil.hosts_toml.containerd import HOSTS_FILE
from speil.hosts_toml.document import HostsTomlError, Mirrors
from speil.hosts_toml.targets import once_each

TRIES_MAX = 10  # attempts while another program writes here; such programs write once, at their start

__all__ = ["BACKUP", "HOSTS_FILE", "HostConfigError", "configure", "preview", "restore"]


def configure(
    directory: Path,
    registries: tuple[str, ...],
    mirrors: Mirrors,
    *,
    prepend_existing: bool,
    in_place: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """Write hosts.toml files for `registries`; returns the names of their directories.

    `registries` are URLs; "" or an empty tuple means all. With `prepend_existing` our mirrors come before the
    configured hosts. Other registries keep their directories, except with all registries and without
    `prepend_existing`: then only `_default` is left, and the backup has the others. `say` is called with each note for
    the operator. `in_place`: see `switch.replace`. Raises HostConfigError.
    """
    try:
        check_path(directory)
        with locked(directory):
            for _ in range(TRIES_MAX):
                now = scan(entries(directory))
                plan, whole = _planned(now, directory, registries, mirrors, prepend_existing=prepend_existing)
                if _same(now, whole) and not leftovers(directory):
                    break
                if _replaced(directory, now, whole, in_place=in_place):
                    break
            else:
                raise _busy(directory)
    except HostsTomlError as error:
        raise HostConfigError(str(error)) from error
    except OSError as error:
        raise HostConfigError(f"{error.filename or directory}: {error.strerror or error}") from error
    for note in plan.notes:
        if say:
            say(note)
    return sorted(path.partition("/")[0] for path in plan.written)


def preview(directory: Path, registries: tuple[str, ...], mirrors: Mirrors, *, prepend_existing: bool) -> str:
    """A unified diff of what `configure` would change in the files that containerd reads. Raises HostConfigError."""
    try:
        check_path(directory)
        now = scan(entries(directory))
        plan, _ = _planned(now, directory, registries, mirrors, prepend_existing=prepend_existing)
        check_mounts(directory)
        return diffs.diff(_without_ours(now), plan.tree, tuple(value for _, value in mirrors.headers))
    except HostsTomlError as error:
        raise HostConfigError(str(error)) from error
    except OSError as error:
        raise HostConfigError(f"{error.filename or directory}: {error.strerror or error}") from error


def restore(directory: Path, *, in_place: bool = False) -> bool:
    """Put the operator's tree back; False if there is nothing to restore. Raises HostConfigError."""
    try:
        if not directory.is_dir():
            return False
        with locked(directory):
            for _ in range(TRIES_MAX):
                now = scan(entries(directory))
                if not was_configured(now):
                    if leftovers(directory) and not _replaced(directory, now, now, in_place=in_place):
                        continue
                    return False
                if _replaced(directory, now, operators_tree(now, ()), in_place=in_place):
                    return True
            raise _busy(directory)
    except OSError as error:
        raise HostConfigError(f"{error.filename or directory}: {error.strerror or error}") from error


class _ChangedError(Exception):
    """Another program wrote into the directory while it was read."""


def _replaced(directory: Path, now: Tree, wanted: Tree, *, in_place: bool) -> bool:
    """Put `wanted` in place; False if the directory has changed since it was read as `now`."""
    check_mounts(directory)
    before = _signature(now)

    def build(staging: Path) -> None:
        try:
            write(wanted, staging)
            changed = _signature(scan(entries(directory))) != before
        except FileNotFoundError as error:
            raise _ChangedError from error
        if changed:
            raise _ChangedError

    try:
        replace(directory, build, in_place=in_place)
    except _ChangedError:
        return False
    return True


def _signature(tree: Tree) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path, node in tree.items():
        assert node.source is not None
        status = node.source.lstat()
        is_directory = node.kind is Kind.DIRECTORY
        found[path] = (status.st_mode, *(() if is_directory else (status.st_ino, status.st_mtime_ns, status.st_size)))
    return found


def _busy(directory: Path) -> HostConfigError:
    return HostConfigError(
        f"{directory} was changed by another program in each of {TRIES_MAX} attempts: run this again"
    )


def _planned(
    now: Tree, directory: Path, registries: tuple[str, ...], mirrors: Mirrors, *, prepend_existing: bool
) -> tuple[Plan, Tree]:
    """The plan, and the complete new tree with backup and record."""
    everything = operators_tree(now, mirrors.targets)
    operator = _without_ours(everything)  # a `_backup` of the operator is kept inside ours
    check_tree(operator, directory)
    make = in_front if prepend_existing else instead
    plan = make(operator, directory, registries or ("",), mirrors)
    prove(plan, operator, directory, mirrors)
    targets = once_each(mirrors.targets)
    written = {
        path: Written.of(plan.tree[path].read(), targets, merged=merged) for path, merged in plan.written.items()
    }
    kept = frozenset(path for path in plan.tree if path not in written and path not in plan.made)
    record = Record(targets, written, plan.made, kept)
    whole = {
        **plan.tree,
        BACKUP: Node(Kind.DIRECTORY, mode=0o755),
        **{f"{BACKUP}/{path}": node for path, node in everything.items()},
        RECORD: Node(Kind.FILE, data=record.encode(), mode=0o600),
    }
    return plan, {path: whole[path] for path in sorted(whole, key=lambda path: path.split("/"))}


def _without_ours(tree: Tree) -> Tree:
    return {path: node for path, node in tree.items() if path.split("/")[0] not in (BACKUP, RECORD)}


def _same(now: Tree, wanted: Tree) -> bool:
    """Whether the tree on the disk already is `wanted`."""
    return now.keys() == wanted.keys() and all(_same_node(now[path], node) for path, node in wanted.items())


def _same_node(now: Node, wanted: Node) -> bool:
    assert now.source is not None
    if now.kind is not wanted.kind or now.target != wanted.target:
        return False
    found = now.source.lstat()
    if wanted.source is None:
        if now.kind is not Kind.LINK and stat.S_IMODE(found.st_mode) != wanted.mode:
            return False
    elif now.source != wanted.source:
        status = wanted.source.lstat()
        same = ("st_mode", "st_uid", "st_gid", "st_mtime_ns")
        if any(getattr(found, name) != getattr(status, name) for name in same):
            return False
    return now.kind is not Kind.FILE or now.source == wanted.source or now.read() == wanted.read()
