"""The workflows of .github: actionlint accepts them, actions are pinned, and commands are those that CI runs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.check_release import problems

from tests.conftest import need
from tests.requirements import REQUIREMENTS, ROOT, Requirement, tool_path

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^ +-? *uses: [\w./-]+@[0-9a-f]{40} # v[0-9.]+$")
# what CI runs too, and what the runner alone can do: install, log in
COMMANDS = re.compile(r"^(make release |bash \.ci/run|scripts/\w+\.sh |apt-get |git config |for tool in )")


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job.get("steps", ())


@pytest.mark.requires("actionlint")
def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool_path("actionlint"), *WORKFLOWS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash_with_their_version_beside_it(workflow: Path) -> None:
    lines = [line for line in workflow.read_text().splitlines() if " uses: " in line]
    assert lines
    for line in lines:
        assert PINNED.match(line) or "uses: ./.github/" in line, line


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_are_make_targets_or_scripts(workflow: Path) -> None:
    for step in steps(workflow):
        if "run" in step:
            assert COMMANDS.match(step["run"]), step["run"]
            for script in re.findall(r"scripts/\w+\.\w+", step["run"]):
                assert (ROOT / script).stat().st_mode & 0o100, script


def test_no_job_may_more_than_it_needs() -> None:
    for workflow in WORKFLOWS:
        document = yaml.safe_load(workflow.read_text())
        assert document["permissions"] == {"contents": "read"}
        for name, job in document["jobs"].items():
            writes = {scope for scope, level in job.get("permissions", {}).items() if level == "write"}
            expected = {
                "push": {"packages", "id-token", "attestations"},
                "index": {"id-token"},
                "publish": {"pages", "id-token"},
            }.get(name, set())
            assert writes == expected, name


def test_ci_runs_what_the_release_runs() -> None:
    assert "make release" in (ROOT / ".ci" / "run").read_text()


def test_the_published_site_is_the_one_that_ci_built() -> None:
    assert "make site" in (ROOT / ".ci" / "run").read_text()
    uploads = [step["with"] for step in steps(ROOT / ".github/workflows/ci.yml") if "artifact" in step.get("uses", "")]
    (kept,) = (one for one in uploads if one["name"] == "site")
    assert kept["path"] == "dist/site/"
    (taken,) = (
        step["with"] for step in steps(ROOT / ".github/workflows/site.yml") if "download" in step.get("uses", "")
    )
    assert taken["name"] == kept["name"]


def test_a_release_whose_parts_disagree_is_refused() -> None:
    chart = {"version": "1.2.3", "appVersion": "1.2.3"}
    assert not problems("v1.2.3", "1.2.3", chart, "# Changelog\n\n## 1.2.3, today\n")
    found = problems("v1.2.4", "1.2.3", {"version": "1.2.2", "appVersion": "1.2.3"}, "# Changelog\n\n## 1.2.30\n")
    assert len(found) == 3
    assert "tag v1.2.3" in found[0]


def test_the_hosted_runner_may_skip_the_cluster_and_nothing_else() -> None:
    # its cgroups are v2, and the nodes of tests/cluster need v1
    skipped = [step["env"]["SPEIL_MAY_SKIP"] for step in steps(ROOT / ".github/workflows/ci.yml") if "env" in step]
    assert skipped == ["cluster"]


def test_what_may_be_skipped_is_skipped_where_all_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Requirement("missing-tool", lambda: False, "install it")
    monkeypatch.setitem(REQUIREMENTS, missing.name, missing)
    monkeypatch.setenv("SPEIL_REQUIRE_ALL", "1")
    monkeypatch.delenv("SPEIL_MAY_SKIP", raising=False)
    with pytest.raises(pytest.fail.Exception, match="missing-tool is missing: install it"):
        need(missing.name)
    monkeypatch.setenv("SPEIL_MAY_SKIP", "cluster,missing-tool")
    with pytest.raises(pytest.skip.Exception, match="missing-tool is missing"):
        need(missing.name)
