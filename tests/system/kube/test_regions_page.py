"""docs/regions.md on a real API server: its install commands are run, then what it says of the ServiceAccounts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.requirements import ROOT
from tests.system.kube.cluster import KubeCluster
from tests.system.kube.test_migration import Shell

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes", "helm", "kubectl")]
# the tests of a folder share the cluster, and another has regiona
A, B = "page-a", "page-b"
PAGE = (ROOT / "docs" / "regions.md").read_text().replace("regiona", A).replace("regionb", B)
(NAMES, INSTALL, PROOF) = (
    re.split(r"^## ", PAGE, flags=re.MULTILINE)[number] for number in (1, 2, 4)
)  # fmt: skip


def code(section: str) -> list[list[str]]:
    """The lines of each block of a section."""
    return [block.splitlines() for block in re.findall(r"^```\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)]


def rights() -> list[tuple[str, str]]:
    """The `kubectl auth can-i` commands of the page, each with the answer that it prints."""
    lines = [line for block in code(PROOF) for line in block]
    return [
        (line.removeprefix("$ "), lines[number + 1])
        for number, line in enumerate(lines)
        if "kubectl auth can-i" in line
    ]


def check_rights(shell: Shell) -> None:
    """Run them; and the same of the other region, whose commands the page leaves to the reader."""
    assert [answer for _, answer in rights()] == ["yes", "no"]
    for command, answer in rights():
        swapped = command.replace(A, "X").replace(B, A).replace("X", B)
        for asked in (command, swapped):
            assert shell.run(f"{asked} || true").strip() == answer, asked


async def test_a_release_a_region(cluster: KubeCluster, tmp_path: Path) -> None:
    shell = Shell(cluster, tmp_path)
    (plan,) = code(NAMES)[:1]
    command = plan[0].removeprefix("$ ")
    assert command.startswith("speil region plan")
    documents = list(yaml.safe_load_all(shell.run(command)))
    create, install = code(INSTALL)[0]
    for region, document in zip((A, B), documents, strict=True):
        (shell.folder / f"values-{region}.yaml").write_text(yaml.safe_dump(document))
        shell.run(create.replace(A, region))
        shell.run(install.replace(A, region))
    check_rights(shell)
    for region in (A, B):
        shell.run(f"helm uninstall speil-{region} -n speil --no-hooks")


async def test_one_release_for_all_regions(cluster: KubeCluster, tmp_path: Path) -> None:
    shell = Shell(cluster, tmp_path)
    for number, region in enumerate((A, B)):
        labels = {"topology.kubernetes.io/region": region}
        await cluster.admin("POST", "/api/v1/nodes", {"metadata": {"name": f"page-{number}", "labels": labels}})
    try:
        plan, install = code(INSTALL)[1]
        shell.run(plan)
        shell.run(install)
        check_rights(shell)
        shell.run("helm uninstall speil -n speil --no-hooks")
    finally:
        for number in range(2):
            await cluster.admin("DELETE", f"/api/v1/nodes/page-{number}")
