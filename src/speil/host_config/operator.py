"""Computes the operator's tree: the content that the directory would have now without speil.

The backup has what the last run found. Changes since then are the operator's: new and changed entries are taken over,
removed entries stay removed. The record of the last run says which entries speil wrote. Backups of Spegel and of early
speil versions have no record. There, files of a mirror are recognised by the form in which Spegel writes them.
"""

from __future__ import annotations

from typing import Any

from speil.host_config.nodes import Kind, Node, Tree, below, parents
from speil.host_config.record import RECORD, Record, Written, digest, rest_digest
from speil.hosts_toml.containerd import HOSTS_FILE
from speil.hosts_toml.document import HostsTomlError, parse, without_targets
from speil.hosts_toml.generated import generated_targets
from speil.hosts_toml.targets import once_each, same_target

BACKUP = "_backup"


def operators_tree(whole: Tree, targets: tuple[str, ...]) -> Tree:
    """The operator's tree in the scanned directory. `targets`: the current mirrors, if known. Raises OSError."""
    live = {path: node for path, node in whole.items() if path.split("/")[0] not in (BACKUP, RECORD)}
    is_backup = BACKUP in whole and whole[BACKUP].kind is Kind.DIRECTORY
    backup = below(whole, BACKUP) if is_backup else {}
    backup.pop(RECORD, None)
    record = Record.decode(whole[RECORD].read()) if RECORD in whole and whole[RECORD].kind is Kind.FILE else None
    if record is not None:
        return _merge(live, backup, record)
    if is_backup and (guess := _guessed(live, backup, targets)):
        return _merge(live, backup, guess)
    return {path: node for path, node in whole.items() if path != RECORD}


def was_configured(whole: Tree) -> bool:
    """Whether speil or Spegel has configured this directory, so that there is something to restore."""
    if RECORD in whole and whole[RECORD].kind is Kind.FILE and Record.decode(whole[RECORD].read()) is not None:
        return True
    if BACKUP not in whole or whole[BACKUP].kind is not Kind.DIRECTORY:
        return False
    live = {path: node for path, node in whole.items() if path.split("/")[0] not in (BACKUP, RECORD)}
    return _guessed(live, below(whole, BACKUP), ()) is not None


def _merge(live: Tree, backup: Tree, record: Record) -> Tree:
    found = dict(backup)
    for path, node in live.items():
        if path in record.written and node.kind is Kind.FILE:
            if theirs := _theirs(node, backup.get(path), path, record):
                found[path] = theirs
        elif not _is_made(path, node, record):
            found[path] = node
    gone = {path for path in record.kept if path not in live}
    gone |= {path for path, written in record.written.items() if written.merged and path not in live}
    found = {path: node for path, node in found.items() if path not in gone and not gone.intersection(parents(path))}
    return _with_parents(found, live, record)


def _theirs(node: Node, before: Node | None, path: str, record: Record) -> Node | None:
    """The operator's part of a file that speil wrote; None if it has nothing beyond the backup."""
    written, data = record.written[path], node.read()
    if digest(data) == written.digest:
        return None
    try:
        text = data.decode()
        rest = without_targets(text, record.targets)
        is_same = rest_digest(text, record.targets) == written.rest_digest
        if rest == text:  # none of our hosts is left: the operator rewrote it, unless only our server line is left
            return None if is_same and not written.merged and "server" in parse(text) else node
        if is_same:
            return None
        if "host" not in parse(rest):  # containerd 1.6 rejects a file without [host], and with it the server line
            rest = f"{rest.rstrip()}\n\n[host]\n"
    except (UnicodeDecodeError, HostsTomlError):
        return node  # invalid, but written by the operator
    return Node(Kind.FILE, node.source, data=rest.encode())


def _is_made(path: str, node: Node, record: Record) -> bool:
    if path not in record.made:
        return False
    target = record.made[path]
    return node.kind is Kind.LINK and node.target == target if target else node.kind is Kind.DIRECTORY


def _with_parents(found: Tree, live: Tree, record: Record) -> Tree:
    """Keep directories of ours that have entries of the operator; drop entries whose directory is gone."""
    tree = dict(found)
    for path in found:
        for parent in parents(path):
            above = tree.get(parent)
            if above is not None and above.kind is Kind.DIRECTORY:
                continue
            if path not in live or parent not in live or live[parent].kind is not Kind.DIRECTORY:
                tree.pop(path, None)
                break
            tree[parent] = live[parent]
            if above is not None and above.kind is Kind.LINK:  # speil had replaced this link by a directory of links
                made = {one: live[one] for one in record.made if one.startswith(f"{parent}/") and one in live}
                hosts = f"{parent}/{HOSTS_FILE}"
                tree = {hosts: Node(Kind.LINK, target=_below(above.target, HOSTS_FILE)), **made, **tree}
    return {path: tree[path] for path in sorted(tree, key=lambda path: path.split("/"))}


def _below(target: str, name: str) -> str:
    return f"{target}/{name}" if target.startswith("/") else f"../{target}/{name}"


def _guessed(live: Tree, backup: Tree, targets: tuple[str, ...]) -> Record | None:
    """Reconstruct the record of a run without one, from the form of the files.

    None if no file has that form: then the operator made the backup. A Spegel that was killed at its start leaves a
    backup and no files; that counts as configured too.
    """
    written: dict[str, Written] = {}
    every = list(targets)
    for path, node in live.items():
        if not _is_hosts_file(path) or node.kind is not Kind.FILE:
            continue
        text, document = _document(node)
        before_text, before = _document(backup.get(path))
        if text == before_text:
            continue
        generated = generated_targets(text, document)
        hosts_before = before.get("host", {})
        ours = tuple(url for url in (*targets, *generated) if url not in hosts_before)
        if not any(same_target(url, one) for url in document.get("host", {}) for one in ours):
            continue
        every += ours
        # Spegel writes its own server line in front of the hosts that were there
        rest = {key: value for key, value in _rest(text, ours).items() if key != "server"}
        as_before = {key: value for key, value in before.items() if key != "server" and value != {}}
        is_all_ours = rest in ({}, as_before)
        written[path] = Written("", rest_digest(text, ours) if is_all_ours else "", merged=False)
    if live and not written:
        return None
    made = {path: "" for path in live if f"{path}/{HOSTS_FILE}" in written and path not in backup}
    return Record(once_each(tuple(every)), written, made, frozenset())


def _document(node: Node | None) -> tuple[str, dict[str, Any]]:
    """The text of a file and the parsed TOML; ("", {}) if it can't be read."""
    if node is None or node.kind is not Kind.FILE:
        return "", {}
    try:
        text = node.read().decode()
        document = parse(text)
    except (UnicodeDecodeError, HostsTomlError):
        return "", {}
    return text, document if isinstance(document.get("host", {}), dict) else {}


def _rest(text: str, targets: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in parse(without_targets(text, targets)).items() if value != {}}


def _is_hosts_file(path: str) -> bool:
    return path.count("/") == 1 and path.endswith(f"/{HOSTS_FILE}")
