"""The whole cluster: started, found again by its folder, used with helm, kubectl and speil's own commands, removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speil.oci.image_builder import BuiltImage
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.images import make_image, push, write_archive
from tests.cluster.lab.layout import CONTROL, PLANS, PRIVATE, PRIVATE_REGISTRY, REGISTRY, SPARE
from tests.cluster.lab.network import Network, run
from tests.cluster.lab.node import Node
from tests.cluster.lab.node_files import PAUSE_REFERENCE
from tests.cluster.lab.processes import Processes
from tests.cluster.lab.registry_log import RegistryLog
from tests.cluster.lab.waiting import wait_for
from tests.requirements import kube_tool_path
from tests.system.lab.namespaces import Namespace, inside
from tests.system.lab.registry import LOGIN

READY_SECONDS_MAX = 180.0
COMMAND_SECONDS_MAX = 400.0
# A kubelet sets these for the whole machine. Of two clusters side by side, stop the first one last.
_SYSCTLS = ("vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops")


class CommandError(AssertionError):
    """A command ended with another code than expected; the message is all that it printed."""


class Cluster:
    """In `folder`; the names of its namespaces and cgroups begin with `prefix`, which the folder holds."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if prefix:
            (folder / "prefix").write_text(prefix)
        self.network = Network((folder / "prefix").read_text())
        self.processes = Processes(folder / "processes")
        self.control = ControlPlane(folder / "control", self.network, self.processes)
        self.nodes = {
            name: Node(plan, folder / "nodes" / name, self.network, self.processes, self.control)
            for name, plan in PLANS.items()
        }

    # --- life -------------------------------------------------------------------------------------------

    def start(self, *, spare: bool = False) -> None:
        """All of it; every node but the spare one is Ready when this returns."""
        sysctls = {name: run("sysctl", "-n", name).strip() for name in _SYSCTLS}
        (self.folder / "sysctls.json").write_text(json.dumps(sysctls))
        self.control.write_files()
        self.network.make()
        (self.folder / "nodes").mkdir()
        write_archive(make_image("pause", 0, 0), PAUSE_REFERENCE, self.folder / "nodes" / "pause.tar")
        with self.inside():
            self.control.start()
            names = [name for name in PLANS if spare or name != SPARE]
            for name in names:
                self.nodes[name].start()
            wait_for(lambda: self.ready_nodes() >= set(names), seconds=READY_SECONDS_MAX, what="all nodes are Ready")

    def stop(self) -> None:
        """Nothing of it is left, whatever had been started."""
        for node in self.nodes.values():
            node.power_off()
        for name in self.processes.names:
            self.processes.kill(name)
        self.network.remove()
        if (sysctls := self.folder / "sysctls.json").exists():
            for name, value in json.loads(sysctls.read_text()).items():
                run("sysctl", "-qw", f"{name}={value}")
        shutil.rmtree(self.folder)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For as long as this lasts, this thread and what it starts are in the control plane's network namespace."""
        with inside(Namespace(self.network.control, CONTROL)):
            yield

    # --- look -------------------------------------------------------------------------------------------

    def ready_nodes(self) -> set[str]:
        """Their names."""
        return {node["metadata"]["name"] for node in self.control.client().list("nodes") if is_ready(node)}

    def registry_log(self, name: str = REGISTRY) -> RegistryLog:
        """What is asked of a registry from now on."""
        return RegistryLog(self.processes.log(name))

    # --- use, from inside -------------------------------------------------------------------------------

    def push(self, image: BuiltImage, name: str, tag: str = "1", *, private: bool = False) -> str:
        """Put an image into a registry. Its reference."""
        host, address = (PRIVATE_REGISTRY, PRIVATE) if private else (REGISTRY, CONTROL)
        push(image, host, address, name, tag, self.control.tls(), LOGIN if private else None)
        return f"{host}/{name}:{tag}"

    def kubectl(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """As the administrator; what it printed."""
        return self._run(str(kube_tool_path("kubectl")), *arguments, stdin=stdin, fails=fails)

    def helm(self, *arguments: str, values: Any = None, fails: bool = False) -> str:
        """As the administrator; `values` are a document, or a file of the chart."""
        more: tuple[str, ...] = ()
        if isinstance(values, Path):
            more = ("--values", str(values))
        elif values is not None:
            more = ("--values", "-")
        stdin = json.dumps(values) if more and more[1] == "-" else ""
        return self._run(str(kube_tool_path("helm")), *arguments, *more, stdin=stdin, fails=fails)

    def speil(self, *arguments: str, fails: bool = False) -> str:
        """`speil` of this checkout, as a person runs it beside the cluster."""
        return self._run(sys.executable, "-m", "speil", *arguments, fails=fails)

    def _run(self, *argv: str, stdin: str = "", fails: bool = False) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.control.kubeconfig("admin")), "HOME": str(self.folder)}
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
            env=environment,
        )
        said = done.stdout + done.stderr
        if (done.returncode != 0) != fails:
            raise CommandError(f"{' '.join(argv[:6])}: {done.returncode}\n{said}")
        return said


def is_ready(thing: dict[str, Any]) -> bool:
    """Whether a node or a pod is Ready."""
    conditions = (thing.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
