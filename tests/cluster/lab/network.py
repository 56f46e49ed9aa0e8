"""Network namespaces: the control plane, which routes between the regions and counts what passes, and the nodes."""

from __future__ import annotations

import subprocess
from itertools import permutations

from tests.cluster.lab.layout import CONTROL, PLANS, PRIVATE, REGIONS, NodePlan, bridge, gateway

COMMAND_SECONDS_MAX = 30.0


def run(*argv: str) -> str:
    """Run a command; its output. Raises CalledProcessError."""
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX)
    return done.stdout


class Network:
    """Namespaces whose names begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.control = self.namespace("cp")

    def namespace(self, name: str) -> str:
        """The network namespace of a node, or of the control plane (cp)."""
        return f"{self._prefix}-{name}"

    def enter(self, namespace: str) -> list[str]:
        """What to put before a command. `ip netns exec` would hide /sys/fs/cgroup."""
        return ["nsenter", f"--net=/run/netns/{namespace}"]

    def make(self) -> None:
        """All of them, with routes between nodes and pods of all regions."""
        control = self.control
        run("ip", "netns", "add", control)
        run("ip", "-n", control, "link", "set", "lo", "up")
        for address in (CONTROL, PRIVATE):
            run("ip", "-n", control, "addr", "add", f"{address}/32", "dev", "lo")
        self._forward(control)
        for network, _ in enumerate(REGIONS, 1):
            run("ip", "-n", control, "link", "add", bridge(network), "type", "bridge")
            run("ip", "-n", control, "addr", "add", f"{gateway(network)}/24", "dev", bridge(network))
            run("ip", "-n", control, "link", "set", bridge(network), "up")
        for plan in PLANS.values():
            self._node(plan)
        for source, target in permutations(range(1, len(REGIONS) + 1), 2):
            rule = ["-A", "FORWARD", "-i", bridge(source), "-o", bridge(target)]
            run(*self.enter(control), "iptables", *rule)

    def renew(self, plan: NodePlan) -> None:
        """A node's namespace as new: a boot leaves no packet filter, such as the host ports of pods that have gone."""
        run("ip", "-n", self.control, "link", "del", plan.name)  # its other end is in the namespace, which ends later
        run("ip", "netns", "del", self.namespace(plan.name))
        self._node(plan)

    def _node(self, plan: NodePlan) -> None:
        control, own = self.control, self.namespace(plan.name)
        run("ip", "netns", "add", own)
        run("ip", "link", "add", "eth0", "netns", own, "type", "veth", "peer", "name", plan.name, "netns", control)
        run("ip", "-n", own, "link", "set", "lo", "up")
        run("ip", "-n", own, "addr", "add", f"{plan.address}/24", "dev", "eth0")
        run("ip", "-n", own, "link", "set", "eth0", "up")
        run("ip", "-n", control, "link", "set", plan.name, "master", bridge(plan.network))
        run("ip", "-n", control, "link", "set", plan.name, "up")
        run("ip", "-n", own, "route", "add", "default", "via", gateway(plan.network))
        run("ip", "-n", control, "route", "replace", f"{plan.pods}.0/24", "via", plan.address)
        self._forward(own)
        for other in PLANS.values():
            # pods of the other region are reached through the control plane, which counts
            if other.network == plan.network and other is not plan:
                run("ip", "-n", own, "route", "add", f"{other.pods}.0/24", "via", other.address)

    def _forward(self, namespace: str) -> None:
        run(*self.enter(namespace), "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def remove(self) -> None:
        """Those that exist."""
        existing = set(run("ip", "netns", "list").split())
        for name in ("cp", *PLANS):
            if self.namespace(name) in existing:
                run("ip", "netns", "del", self.namespace(name))

    def packets_between_regions(self) -> int:
        """How many have passed so far, in both directions."""
        listed = run(*self.enter(self.control), "iptables", "-nvxL", "FORWARD")
        return sum(int(line.split()[0]) for line in listed.splitlines()[2:])
