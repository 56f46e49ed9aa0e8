"""Asking nodes and running kubectl, cancelled at each suspension: no task, descriptor or process is left."""

from __future__ import annotations

from pathlib import Path

from speil.progress import Progress
from speil.survey.look import ClusterSettings
from speil.survey.pod_exec import Kubectl, document_of
from speil.survey.pods import Pod
from speil.survey.trace import NodeTrace, trace_at
from speil.testing.cancellation import cancel_at_each_step

# It goes on for a moment after its output has ended: so its end is waited for, too.
KUBECTL = """#!/bin/sh
echo pulling >&2
echo '{"findings": []}'
exec sleep 0.5 >&- 2>&-
"""


async def test_a_command_in_a_pod(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    kubectl, pod, lines = Kubectl(str(program), ClusterSettings("", "")), Pod("speil", "speil-x", "a1", ""), set[str]()

    async def run() -> None:
        assert await document_of(kubectl, pod, "registry", ["speil", "doctor"], lines.add) == {"findings": []}

    assert await cancel_at_each_step(run) >= 3
    assert lines == {"pulling"}


async def test_nodes_that_can_not_be_reached() -> None:
    async def run() -> None:
        with Progress(quiet=True) as progress:
            found: list[NodeTrace] = await trace_at(["http://127.0.0.1:1"] * 3, "a/b", (), {}, progress)
        assert [one.error != "" for one in found] == [True] * 3

    assert await cancel_at_each_step(run) >= 2
