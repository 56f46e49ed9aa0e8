"""Whether a path is the directory that containerd's `config_path` names, before anything in it is touched."""

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
SHOWN_MAX = 3  # entries that a message names


def check_path(directory: Path) -> None:
    """Raises HostConfigError for what can be no directory of registries, whatever is in it."""
    text = str(directory)
    if text == "." or "\0" in text:
        raise HostConfigError(f"the path is empty: say the directory that containerd's config_path names, as {USUAL}")
    if ":" in text and any(part.startswith("/") for part in text.split(":")[1:]):
        first = text.partition(":")[0]
        raise HostConfigError(f"{text} is a list of directories: say one of them, as {first}")
    if directory.is_symlink() and not directory.exists():
        raise HostConfigError(f"{text} is a link to {directory.readlink()}, which is not there: {_should_be()}")
    if directory.exists() and not directory.is_dir():
        raise HostConfigError(f"{text} is a file: {_should_be(directory.parent / 'certs.d')}")
    for parent in directory.parents:
        if parent.exists() and not parent.is_dir():
            raise HostConfigError(f"{parent} is a file, so {text} can't be: {_should_be()}")
    whole = str(directory.resolve())
    if _SYSTEM.fullmatch(whole):
        raise HostConfigError(f"{text} is a directory of the system: {_should_be()}")


def check_tree(tree: Tree, directory: Path) -> None:
    """Raises HostConfigError where what is in the directory is not the configuration of registries."""
    top = children(tree, "")
    files = [name for name in top if tree[name].kind is not Kind.DIRECTORY]
    if found := [name for name in files if name in _SETTINGS or name.endswith((".sock", ".db"))]:
        if found == ["hosts.toml"]:
            raise HostConfigError(
                f"{directory} holds a hosts.toml: it is the directory of one registry; {_should_be(directory.parent)}"
            )
        raise HostConfigError(
            f"{directory} holds {_names(found)}, so it is not a directory of registries: "
            f"{_should_be(directory / 'certs.d')}"
        )
    if "certs.d" in top and tree["certs.d"].kind is not Kind.FILE:
        raise HostConfigError(f"{directory} holds certs.d: {_should_be(directory / 'certs.d')}")
    if any(_is_registry(tree, name) for name in top):
        return
    foreign = [name for name in top if not name.startswith(".") and (_is_file(tree, name) or children(tree, name))]
    if foreign:
        raise HostConfigError(
            f"{directory} holds {_names(foreign)} and no directory with a hosts.toml or certificates: {_should_be()}"
        )


def check_mounts(directory: Path) -> None:
    """Raises HostConfigError where something is mounted below: exchanging trees would empty it."""
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
        return True  # it may lead to one
    inside = children(tree, name)
    return any(one.endswith(_OF_A_REGISTRY) for one in inside)


def _is_file(tree: Tree, name: str) -> bool:
    return tree[name].kind is Kind.FILE


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


def _should_be(better: Path | None = None) -> str:
    usual = f"say the directory that containerd's config_path names, as {better or USUAL}"
    return f"{usual}; nothing was changed"
