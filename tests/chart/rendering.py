"""helm in the tests' hands: values in, objects out."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.requirements import ROOT, kube_tool_path

CHART = ROOT / "charts" / "speil"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
Values = Mapping[str, Any]
Manifest = dict[str, Any]


class RefusedError(Exception):
    """helm would not; the message is its own."""


def helm(*arguments: str, values: Values | Path | None = None) -> str:
    """Run helm, once for each question. Raises RefusedError."""
    return _run(arguments, values.read_text() if isinstance(values, Path) else json.dumps(values or {}))


@functools.cache
def _run(arguments: tuple[str, ...], values: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        arguments = (*arguments, "--values", file.name)
        done = subprocess.run([str(kube_tool_path("helm")), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(done.stderr or done.stdout)
    return done.stdout


class Objects:
    """What a release consists of."""

    def __init__(self, text: str) -> None:
        self.all: list[Manifest] = [one for one in yaml.safe_load_all(text) if one]

    def of(self, kind: str, *, hooks: bool = False) -> list[Manifest]:
        """The objects of a kind; of the hooks, or of the release proper."""
        return [one for one in self.all if one["kind"] == kind and is_hook(one) == hooks]

    def only(self, kind: str, name: str = "", *, hooks: bool = False) -> Manifest:
        """The one object of a kind (and name)."""
        (found,) = (one for one in self.of(kind, hooks=hooks) if name in ("", one["metadata"]["name"]))
        return found

    def names(self) -> set[tuple[str, str, str]]:
        """Kind, namespace and name of each."""
        return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in self.all}

    def containers(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Each container with the specification of its pod."""
        for one in self.all:
            pod = one["spec"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("spec")
            if pod is not None:
                for container in (*pod.get("initContainers", ()), *pod["containers"]):
                    yield container, pod


def is_hook(one: Manifest) -> bool:
    """Whether helm runs it as a hook."""
    return "helm.sh/hook" in one["metadata"].get("annotations", {})


def render(
    values: Values | Path, *arguments: str, release: str = "speil", namespace: str = "mirror", kube: str = ""
) -> Objects:
    """A release, as `helm template` shows it. Raises RefusedError."""
    more = ("--kube-version", kube) if kube else ()
    return Objects(helm("template", release, str(CHART), "--namespace", namespace, *more, *arguments, values=values))


def environment(
    container: Manifest, labels: Mapping[str, str] | None = None, host_ip: str = "10.0.0.9"
) -> dict[str, str]:
    """A container's environment on a node with these topology labels."""
    fields = {"spec.nodeName": "node-1", "status.hostIP": host_ip}
    fields |= {f"metadata.labels['{key}']": value for key, value in (labels or {}).items()}
    found: dict[str, str] = {}
    for one in container.get("env", ()):
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[one["name"]] = expanded(one["value"], found) if field is None else fields.get(field, "")
    return found


def arguments(container: Manifest, environ: Mapping[str, str]) -> list[str]:
    """A container's arguments as its process gets them."""
    return [expanded(argument, environ) for argument in container["args"]]


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """What the kubelet makes of `args` and `env`: $(NAME) where the name is defined, $$ for $, all else as it is."""

    def fill(match: re.Match[str]) -> str:
        return "$" if match[1] is None else environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", fill, text)


def notes(values: Values | Path, *arguments: str, release: str = "speil", namespace: str = "mirror") -> str:
    """What helm says when the release is installed. Raises RefusedError."""
    dry = ("install", release, str(CHART), "--namespace", namespace, "--dry-run=client")
    return helm(*dry, *arguments, values=values).partition("\nNOTES:\n")[2]
