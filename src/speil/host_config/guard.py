"""Checks that a path looks like the directory of containerd's `config_path`, before anything in it is changed."""

from __future__ import annotations

import re
from pathlib import Path

from speil.host_config.errors import HostConfigError
from speil.host_config.nodes import Kind, Tree, children

USUAL = "/etc/containerd/certs.d"
_SYSTEM = re.compile(
    r"/((bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)"
    r"|(etc|run|var/lib)/(containerd|docker|rancher|kubernetes|kubelet))?"
)
_SETTINGS = ("config.toml", "config.toml.tmpl", "config-v3.toml.tmpl", "daemon.json", "containerd.sock", "hosts.toml")
_OF_A_REGISTRY = (".crt", ".cert", ".key", ".pem", ".toml")
SHOWN_MAX = 3  # names of entries in a message


def check_path(directory: Path) -> None:
    """Check the path alone. Raises HostConfigError if it can't be a directory of registries."""
    text = str(directory)
    if text == "." or "\0" in text:
        raise HostConfigError(f"the path is empty: name the directory in containerd's config_path, such as {USUAL}")
    if ":" in text and any(part.startswith("/") for part in text.split(":")[1:]):
        first = text.partition(":")[0]
        raise HostConfigError(f"{text} is a list of directories: name one of them, such as {first}")
    if directory.is_symlink() and not directory.exists():
        raise HostConfigError(f"{text} is a link to {directory.readlink()}, which does not exist: {_should_be()}")
    if directory.exists() and not directory.is_dir():
        raise HostConfigError(f"{text} is a file: {_should_be(directory.parent / 'certs.d')}")
    for parent in directory.parents:
        if parent.exists() and not parent.is_dir():
            raise HostConfigError(f"{parent} is a file, so {text} can't be a directory: {_should_be()}")
    whole = str(directory.resolve())
    if _SYSTEM.fullmatch(whole):
        raise HostConfigError(f"{text} is a system directory: {_should_be()}")


def check_tree(tree: Tree, directory: Path) -> None:
    """Check the entries. Raises HostConfigError if they are not the configuration of registries."""
    top = children(tree, "")
    files = [name for name in top if tree[name].kind is not Kind.DIRECTORY]
    if found := [name for name in files if name in _SETTINGS or name.endswith((".sock", ".db"))]:
        if found == ["hosts.toml"]:
            raise HostConfigError(
                f"{directory} has a hosts.toml, so it is the directory of one registry: {_should_be(directory.parent)}"
            )
        raise HostConfigError(
            f"{directory} has {_names(found)}, so it is not a directory of registries: "
            f"{_should_be(directory / 'certs.d')}"
        )
    if "certs.d" in top and tree["certs.d"].kind is not Kind.FILE:
        raise HostConfigError(f"{directory} has a certs.d: {_should_be(directory / 'certs.d')}")
    if any(_is_registry(tree, name) for name in top):
        return
    foreign = [name for name in top if not name.startswith(".") and (_is_file(tree, name) or children(tree, name))]
    if foreign:
        raise HostConfigError(
            f"{directory} has {_names(foreign)} and no directory with a hosts.toml or certificates: {_should_be()}"
        )


def check_mounts(directory: Path) -> None:
    """Raises HostConfigError if something is mounted inside: exchanging the directory would hide the mount."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    whole = f"{directory.resolve()}/"
    for line in lines:
        place = line.split(" ")[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if place.startswith(whole):
            raise HostConfigError(f"{place} is a mount inside {directory}: mount it elsewhere, and link to it")


def _is_registry(tree: Tree, name: str) -> bool:
    if tree[name].kind is Kind.LINK:
        return True  # it may lead to a directory
    inside = children(tree, name)
    return any(one.endswith(_OF_A_REGISTRY) for one in inside)


def _is_file(tree: Tree, name: str) -> bool:
    return tree[name].kind is Kind.FILE


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


def _should_be(better: Path | None = None) -> str:
    usual = f"name the directory in containerd's config_path, such as {better or USUAL}"
    return f"{usual}; nothing was changed"
