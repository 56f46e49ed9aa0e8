"""A unified diff of two directory trees."""

from __future__ import annotations

import difflib
import hashlib

from speil.host_config.nodes import Kind, Node, Tree


def diff(before: Tree, after: Tree, secrets: tuple[str, ...] = ()) -> str:
    """The diff of all files; "" if the trees are equal. `secrets` are masked. Raises OSError."""
    parts: list[str] = []
    for path in sorted({*before, *after}):
        old, new = _lines(before.get(path)), _lines(after.get(path))
        if old == new:
            continue
        names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
        parts += difflib.unified_diff(old or [], new or [], *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in parts)
    for secret in secrets:
        text = text.replace(secret, "(not shown)")
    return text


def _lines(node: Node | None) -> list[str] | None:
    if node is None or node.kind is Kind.DIRECTORY:
        return None
    if node.kind is Kind.LINK:
        return [f"(a link to {node.target})\n"]
    data = node.read()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if "\0" in text or (data and not text):
        return [f"(binary, {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()})\n"]
    return text.splitlines(keepends=True)
