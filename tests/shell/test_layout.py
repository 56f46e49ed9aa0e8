"""The source tree: modules import each other without circles, and the package's map names every package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import speil

SOURCE = Path(speil.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules that it names in an import: also inside functions and for the type checker alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            # `from speil import daemon` names the module, `from speil.setting import text` the package
            submodules = {f"{base}.{alias.name}" for alias in node.names} & known.keys()
            named |= submodules | ({base} if len(submodules) < len(node.names) else set())
    return (named & known.keys()) - {module}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other: the strongly connected components with more than one (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return sorted(found)


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(graph) == [["a", "b", "c"], ["d", "e"]]
    assert circles({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == []


def test_no_modules_import_each_other() -> None:
    known = modules()
    assert len(known) > 200, "they are found"
    found = circles({module: imports_of(module, path, known) for module, path in known.items()})
    assert found == []


def packages() -> Iterator[str]:
    """What lies directly in the package: folders and modules of their own."""
    for path in SOURCE.iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            yield path.name
        elif path.suffix == ".py" and path.stem not in ("__init__", "__main__"):
            yield path.stem


def test_the_map_of_the_package_names_every_package_once() -> None:
    assert speil.__doc__ is not None
    named = [
        name
        for line in speil.__doc__.splitlines()
        if (match := re.fullmatch(r"    ([a-z0-9_]+(?:, [a-z0-9_]+)*)  +\S.*", line))
        for name in match[1].split(", ")
    ]
    assert sorted(named) == sorted(packages())
