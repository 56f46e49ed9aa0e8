"""The nodes' cgroups on machines with cgroup v1 and with v2. No cluster is started.

On a machine with v1, v2 is there beside it, without the controllers that v1 has. What moves processes and hands on
controllers is tested on that; that a kubelet runs on v2 is not.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.lab.cgroups import ROOT, SYSTEM, NodeCgroups, has_memory, is_unified
from tests.cluster.lab.waiting import wait_for
from tests.conftest import need

pytestmark = pytest.mark.system
END_SECONDS_MAX = 20.0


def test_the_hierarchies_that_are_mounted_decide(tmp_path: Path) -> None:
    first, second = tmp_path / "v1", tmp_path / "v2"
    for name in ("memory", "cpuset", "unified"):
        (first / name).mkdir(parents=True)
    (first / "unified" / "cgroup.controllers").write_text("hugetlb\n")
    for name in ("cpuset.cpus", "cpuset.mems"):
        (first / "cpuset" / name).write_text("0-1")
    second.mkdir()
    for name in ("controllers", "subtree_control"):
        (second / f"cgroup.{name}").write_text("cpuset cpu io memory pids\n")
    assert (is_unified(first), is_unified(second)) == (False, True)
    assert has_memory(first)
    assert has_memory(second)

    old, new = NodeCgroups("a1", first), NodeCgroups("a1", second)
    old.make()
    new.make()
    assert (first / "cpuset" / "a1" / "cpuset.cpus").read_text() == "0-1"
    assert all((first / name / "a1").is_dir() for name in ("memory", "cpuset", "unified"))
    # the kernel makes these files
    (second / "a1" / "cgroup.controllers").write_text("cpuset memory\n")
    (second / "a1" / "cgroup.procs").write_text("")
    new.settle()
    old.settle()
    assert (second / "a1" / "cgroup.subtree_control").read_text() == "+cpuset +memory"
    assert not (first / "memory" / "a1" / SYSTEM).exists()
    assert "mount -t cgroup -o" in old.mount_script
    assert "mount -t cgroup -o" not in new.mount_script
    assert f"{second}/a1/{SYSTEM}" in new.inside(["true"])[2]
    assert f"{first}/memory/a1 " in old.inside(["true"])[2]

    (second / "cgroup.subtree_control").write_text("")
    assert not has_memory(second), "a container with processes in its root"
    assert not has_memory(tmp_path)


def test_with_v2_the_root_of_a_node_has_no_processes_and_gives_its_controllers() -> None:
    need("namespaces")
    need("cgroup2")
    unified = ROOT if is_unified() else ROOT / "unified"
    name = f"speil-test-{os.getpid()}"
    cgroups, group = NodeCgroups(name, unified), unified / name
    cgroups.make()
    mount = f"{cgroups.mount_script}echo up; exec sleep 1000"
    unshare = ["unshare", "-C", "-m", "-p", "-f", "--kill-child=SIGKILL", "--propagation=private", "bash", "-ec", mount]
    first = subprocess.Popen(cgroups.first(unshare), stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n"
        (inner,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        cgroups.settle()
        assert not (group / "cgroup.procs").read_text().split()
        assert {str(first.pid), inner} <= set((group / SYSTEM / "cgroup.procs").read_text().split())
        given, had = ((group / f"cgroup.{name}").read_text().split() for name in ("subtree_control", "controllers"))
        assert given == had

        seen = ["nsenter", "-t", inner, "-C", "-m", "--", "sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup"]
        done = subprocess.run(cgroups.inside(seen), capture_output=True, text=True, check=True, timeout=60)
        assert f"0::/{SYSTEM}\n" in done.stdout, "the node's root is the root of what it sees"
        assert {SYSTEM, "cgroup.controllers"} <= set(done.stdout.split())
        # as runc makes a container's
        make = ["nsenter", "-t", inner, "-C", "-m", "--", "mkdir", "-p", "/sys/fs/cgroup/k8s.io/container"]
        subprocess.run(cgroups.inside(make), check=True, timeout=60)
        assert (group / "k8s.io" / "container" / "cgroup.procs").exists()
        assert not cgroups.remove(), "it is in use"
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        wait_for(cgroups.remove, seconds=END_SECONDS_MAX, what="the cgroups are empty")
    assert not group.exists()
