"""A node: a network namespace, and mount, process and cgroup namespaces in which containerd and a kubelet are at home.

/run, /var/lib, /var/log and /etc are the node's own, so the chart's paths are the usual ones. Killing the first process
of the node is a power failure: the kernel ends all others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.lab.cgroups import NodeCgroups
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.layout import CONTROL, PODS, PRIVATE, PRIVATE_REGISTRY, REGISTRY, SERVICES, NodePlan
from tests.cluster.lab.network import Network
from tests.cluster.lab.node_files import (
    COLLECT_IMAGES,
    CONTAINERD_CONFIG,
    INIT,
    PAUSE_REFERENCE,
    cni_config,
    kubelet_config,
)
from tests.cluster.lab.processes import Processes, children
from tests.cluster.lab.waiting import wait_for
from tests.requirements import kube_tool_path, tool_path

START_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 120.0
_HEAD = """import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], method="HEAD", headers=json.loads(sys.argv[2]))
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
_AGAIN = 'while :; do "$@"; sleep 1; done'  # as systemd would


class Node:
    """Its files are in `folder`."""

    def __init__(
        self, plan: NodePlan, folder: Path, network: Network, processes: Processes, control: ControlPlane
    ) -> None:
        self.plan, self.folder = plan, folder
        self._network, self._processes, self._control = network, processes, control
        self._cgroups = NodeCgroups(network.namespace(plan.name))

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        return self.plan.name

    @property
    def runs(self) -> bool:
        """Whether it is switched on."""
        return bool(self._processes.pid(self._process("init")))

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on. The kubelet is not waited for. Images and hosts.toml of before are still there."""
        if (self.folder / "up").exists():
            self._network.renew(self.plan)
        shutil.rmtree(self.folder / "run", ignore_errors=True)  # a boot empties /run
        self._write_files()
        self._cgroups.make()
        (self.folder / "up").unlink(missing_ok=True)
        namespace = self._network.namespace(self.name)
        unshare = ["unshare", "-C", "-m", "-u", "-p", "-f", "--kill-child=SIGKILL", "--propagation", "slave"]
        command = [*self._network.enter(namespace), *unshare, "bash", str(self.folder / "init.sh")]
        self._processes.start(self._process("init"), self._cgroups.first(command))
        wait_for((self.folder / "up").exists, seconds=START_SECONDS_MAX, what=f"{self.name} is up")
        self._cgroups.settle()
        self.start_containerd()
        imported = self.folder / "imported"
        if not imported.exists():
            self.run(str(tool_path("ctr")), "-n", "k8s.io", "images", "import", str(self.folder.parent / "pause.tar"))
            imported.touch()
        self.start_kubelet()
        self._start(
            "kube-proxy", str(kube_tool_path("kube-proxy")), f"--kubeconfig={self._control.kubeconfig('proxy')}",
            "--proxy-mode=iptables", f"--hostname-override={self.name}", f"--cluster-cidr={PODS}",
            # these are the machine's, not the node's
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0", "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
        )  # fmt: skip
        self._start(
            "kube-router", str(kube_tool_path("kube-router")), f"--kubeconfig={self._control.kubeconfig('admin')}",
            "--run-firewall=true", "--run-router=false", "--run-service-proxy=false",
            f"--hostname-override={self.name}", f"--service-cluster-ip-range={SERVICES}", "--health-port=0",
        )  # fmt: skip

    def start_containerd(self) -> None:
        """Until it answers."""
        self._start("containerd", str(tool_path("containerd")), "--config", "/etc/containerd/config.toml")
        version = self.inside(str(tool_path("ctr")), "version")
        wait_for(
            lambda: subprocess.run(version, capture_output=True, check=False).returncode == 0,
            seconds=START_SECONDS_MAX,
            what=f"containerd of {self.name} answers",
        )

    def start_kubelet(self) -> None:
        """Not waited for; it starts again when it ends."""
        plan = self.plan
        labels = f"topology.kubernetes.io/region={plan.region},topology.kubernetes.io/zone={plan.zone}"
        self._start(
            "kubelet", "bash", "-c", _AGAIN, "kubelet", str(kube_tool_path("kubelet")),
            f"--config={self.folder / 'kubelet.json'}", f"--kubeconfig={self._control.kubeconfig(self.name)}",
            f"--hostname-override={self.name}", f"--node-ip={plan.address}", "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki", f"--node-labels={labels}",
        )  # fmt: skip

    @contextmanager
    def collects_images(self) -> Iterator[None]:
        """For as long as this lasts, its kubelet is one that removes all images without a container when it starts."""
        usual = kubelet_config(self.plan, str(self._control.authority))
        for config in (usual | COLLECT_IMAGES, usual):
            self.kill("kubelet")
            (self.folder / "kubelet.json").write_text(json.dumps(config))
            self.start_kubelet()
            if config is not usual:
                yield

    def kill(self, program: str) -> None:
        """SIGKILL to containerd or the kubelet alone; containers go on."""
        name = self._process(program)
        for child in children(self._processes.inner_pid(name)):
            os.kill(child, signal.SIGKILL)  # the kubelet behind its loop
        self._processes.kill(name)

    def power_off(self) -> None:
        """All of it, at once."""
        name = self._process("init")
        if inner := self._processes.inner_pid(name):
            os.kill(inner, signal.SIGKILL)
            wait_for(lambda: not self._processes.pid(name), seconds=START_SECONDS_MAX, what=f"{self.name} is off")
        for one in self._processes.names:
            if one.startswith(f"{self.name}-"):
                self._processes.forget(one)
        wait_for(self._cgroups.remove, seconds=START_SECONDS_MAX, what=f"the cgroups of {self.name} are empty")

    # --- use --------------------------------------------------------------------------------------------

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command` on the node."""
        init = self._processes.inner_pid(self._process("init"))
        assert init, f"{self.name} is off"
        return self._cgroups.inside(["nsenter", "-t", str(init), "-C", "-m", "-u", "-n", "-p", "--", *command])

    def run(self, *command: str) -> str:
        """Run a command on the node; its output. Raises AssertionError where it fails."""
        done = subprocess.run(
            self.inside(*command), capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ctr(self, *arguments: str) -> list[str]:
        """A command of containerd's own client, on the images of Kubernetes."""
        return [str(tool_path("ctr")), "-n", "k8s.io", *arguments]

    def pull(self, reference: str) -> None:
        """As a kubelet's pull, without one."""
        self.run(*self.ctr("images", "pull", "--hosts-dir", "/etc/containerd/certs.d", reference))

    def images(self) -> set[str]:
        """The references that its containerd has."""
        return set(self.run(str(tool_path("ctr")), "-n", "k8s.io", "images", "list", "-q").split())

    def hosts_tree(self) -> dict[str, tuple[str, int]]:
        """/etc/containerd/certs.d: text and mode of each file, by path."""
        root = self.folder / "etc" / "containerd" / "certs.d"
        return {
            str(path.relative_to(root)): (path.read_text(), path.stat().st_mode & 0o777)
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.startswith(".speil")
        }

    def mirror_status(self, repository: str, kind: str, reference: str) -> int:
        """What this node's speil answers its own containerd for content of the registry, which may be a tag."""
        text = self.hosts_tree()["_default/hosts.toml"][0]
        ((mirror, section),) = list(tomllib.loads(text)["host"].items())[:1]
        url = f"{mirror}/v2/{repository}/{kind}/{reference}?ns={REGISTRY}"
        return int(self.run(sys.executable, "-c", _HEAD, url, json.dumps(section.get("header", {}))))

    def write_hosts_file(self, relative: str, text: str) -> None:
        """A file below certs.d, as an operator has put it there before."""
        self.run("sh", "-c", f"mkdir -p $(dirname {relative}); cat > {relative} <<'END'\n{text}END\n")

    # --- inside -----------------------------------------------------------------------------------------

    def _process(self, program: str) -> str:
        return f"{self.name}-{program}"

    def _start(self, program: str, *command: str) -> None:
        self._processes.start(self._process(program), self.inside(*command))

    def _write_files(self) -> None:
        for one in ("run", "varlib", "varlog", "etc", "etc-work"):
            (self.folder / one).mkdir(parents=True, exist_ok=True)
        control = self._control
        hosts = f"{CONTROL} {REGISTRY}\n{PRIVATE} {PRIVATE_REGISTRY}\n127.0.0.1 localhost {self.name}\n"
        (self.folder / "hosts").write_text(hosts)
        init = INIT.format(
            name=self.name, folder=self.folder, authority=control.authority, cgroups=self._cgroups.mount_script
        )
        (self.folder / "init.sh").write_text(init)
        (self.folder / "cni.conflist").write_text(json.dumps(cni_config(self.plan)))
        shim = tool_path("containerd-shim-runc-v2")
        (self.folder / "config.toml").write_text(CONTAINERD_CONFIG.format(pause=PAUSE_REFERENCE, shim=shim))
        kubelet = kubelet_config(self.plan, str(control.authority))
        (self.folder / "kubelet.json").write_text(json.dumps(kubelet))
