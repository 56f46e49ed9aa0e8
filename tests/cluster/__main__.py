"""A cluster for people: two regions, speil installed in both, everything between them counted.

up                    start it, install speil with the documented values, say how to use it
down                  remove it
kubectl …, helm …     as its administrator
speil …               such as `speil region status`
node NAME COMMAND …   run a command on a node: a1, a2, a3, b1, b2
start NAME, off NAME  switch a node on or off
packets               how many have passed between the regions
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.install import REPOSITORY, TAG, install_regions, push_speil, speil_image
from tests.requirements import REQUIREMENTS, kube_tool_path

FOLDER = Path(os.environ.get("SPEIL_CLUSTER_FOLDER") or "/tmp/speil-cluster")
NEEDS = ("cluster",)


def main() -> int:
    """See the module."""
    what, *more = sys.argv[1:] or ("help",)
    if what == "up":
        return _up()
    if what not in ("down", "kubectl", "helm", "speil", "node", "start", "off", "packets"):
        print(__doc__)
        return 2
    if not (FOLDER / "prefix").exists():
        print(f"no cluster in {FOLDER}: run `python -m tests.cluster up` (or set SPEIL_CLUSTER_FOLDER)")
        return 1
    cluster = Cluster(FOLDER)
    if what == "down":
        cluster.stop()
        return 0
    if what == "packets":
        print(cluster.network.packets_between_regions())
        return 0
    if what in ("start", "off"):
        node = cluster.nodes[more[0]]
        if what == "off":
            node.power_off()
        else:
            with cluster.inside():
                node.start()
        return 0
    if what == "node":
        return subprocess.run(cluster.nodes[more[0]].inside(*more[1:]), check=False).returncode
    program = [sys.executable, "-m", "speil"] if what == "speil" else [str(kube_tool_path(what))]
    environment = {**os.environ, "KUBECONFIG": str(cluster.control.kubeconfig("admin"))}
    with cluster.inside():
        return subprocess.run([*program, *more], env=environment, check=False).returncode


def _up() -> int:
    for name in NEEDS:
        if not REQUIREMENTS[name].is_met():
            print(f"{name} is missing: {REQUIREMENTS[name].install}")
            return 1
    if (FOLDER / "prefix").exists():
        print(f"there is a cluster in {FOLDER}: run `python -m tests.cluster down` first")
        return 1
    cluster = Cluster(FOLDER, f"speil-lab-{os.getpid()}")
    try:
        speil_image(cluster)
        cluster.start()
        with cluster.inside():
            push_speil(cluster)
            for said in install_regions(cluster):
                print(said)
            print(cluster.speil("region", "status"))
    except BaseException:
        print(f"it failed; the logs are in {FOLDER}/processes. Remove it with `python -m tests.cluster down`")
        raise
    print(f"speil is installed from {REPOSITORY}:{TAG}. Try:")
    for line in (
        "kubectl get pods -A -o wide",
        "speil region verify",
        "node a1 cat /etc/containerd/certs.d/_default/hosts.toml",
    ):
        print(f"  .venv/bin/python -m tests.cluster {line}")
    print("and remove it with: .venv/bin/python -m tests.cluster down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
