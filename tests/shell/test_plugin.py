"""`kubectl speil`: its commands, the programs that kubectl finds, errors of a cluster as one line."""

from __future__ import annotations

import json
import tomllib
from typing import Any, cast

import pytest
from scripts.image.root import PROGRAMS

from speil import cli
from speil.cli import app
from speil.kube.api import KubeAnswer, KubeApi
from speil.kube.error import KubeForbiddenError, KubeNotFoundError, KubeUnauthorizedError, KubeUnreachableError
from speil.survey.error import MissingRightError, SurveyError, missing_right, survey_error
from speil.survey.pods import pod_of_node
from tests.requirements import ROOT
from tests.shell.conftest import Speil

# as kube-apiserver 1.36 words them; tests/system/isolation/test_plugin.py has the real ones
FORBIDDEN_PODS = 'pods is forbidden: User "jane" cannot list resource "pods" in API group "" at the cluster scope'
FORBIDDEN_PROXY = (
    'pods "speil-x:9090" is forbidden: User "system:serviceaccount:ops:web" cannot create resource "pods/proxy" in API'
    ' group "" in the namespace "speil"'
)
FORBIDDEN_LEASES = (
    'leases.coordination.k8s.io is forbidden: User "jane" cannot list resource "leases" in API group'
    ' "coordination.k8s.io" at the cluster scope'
)


def plugin(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """As `kubectl speil`, in this process."""
    code = app.main(argv, app.PLUGIN)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_has_the_commands_for_clusters() -> None:
    names = [command.name for command in app.PLUGIN.commands]
    assert {"status", "verify", "web", "plan", "trace", "doctor", "version"} == set(names)
    modules = {command.name: command.module for command in app.PLUGIN.commands}
    assert modules["doctor"] == "region_doctor", "of a node's pod, not of this machine"


def test_the_programs_of_the_wheel_and_of_the_image_are_the_same() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {name: f"speil.cli:{function}" for name, function in PROGRAMS.items()} == declared
    for function in PROGRAMS.values():
        assert callable(getattr(cli, function))


def test_help_names_the_plugin(speil_here: Speil, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = plugin(capsys, "--help")
    assert (code, err) == (0, "")
    assert "usage: kubectl speil COMMAND" in out
    assert "region status" not in out
    code, out, _ = plugin(capsys, "help", "doctor")
    assert (code, out.splitlines()[0]) == (0, "usage: kubectl speil doctor NODE [--flag value ...]")
    assert "--kubeconfig-context, --context <text>" in out
    assert "--output, -o <text|wide|json>" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["stauts"], "kubectl speil: unknown command 'stauts', did you mean status?"),
        (["registry"], "kubectl speil: unknown command 'registry'"),
        (["doctor"], "kubectl speil doctor: NODE is required"),
        (["doctor", "a", "b"], "kubectl speil doctor: unexpected argument 'b'"),
        (["doctor", "a", "--image=x"], "--image: image 'x': no registry host in front"),
        (["trace"], "kubectl speil trace: IMAGE is required"),
        (["trace", "a:b:c"], "invalid"),
        (["trace", "a", "--platform=linux"], "kubectl speil trace: "),
        (["status", "-o", "yaml"], "'yaml' is not known: use one of table, wide, json"),
        (["verify", "-oyaml"], "'yaml' is not known: use one of text, wide, json"),
        (["status", "--contxt=x"], "did you mean --context?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    speil_here: Speil, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    code, out, err = plugin(capsys, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_plan_in_all_outputs(speil_here: Speil, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = plugin(capsys, "plan", "--region", "a", "b", "-o", "wide")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == ["region", "a", "b"]
    assert "spegel-leader-election-a" in out
    code, out, _ = plugin(capsys, "plan", "--region=a", "-ojson")
    assert [one["region"] for one in json.loads(out)] == ["a"]


# --- errors of a cluster ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "right", "who", "kind"),
    [
        (FORBIDDEN_PODS, "list pods in all namespaces", "user jane", "ClusterRole with the verb 'list' on 'pods'"),
        (
            FORBIDDEN_PROXY,
            "create pods/proxy in namespace speil",
            "user system:serviceaccount:ops:web",
            "Role with the verb 'create' on 'pods/proxy'",
        ),
        (
            FORBIDDEN_LEASES,
            "list leases.coordination.k8s.io in all namespaces",
            "user jane",
            "ClusterRole with the verb 'list' on 'leases.coordination.k8s.io'",
        ),
    ],
)
def test_a_right_that_is_missing_is_named(message: str, right: str, who: str, kind: str) -> None:
    said = missing_right(f"https://api: {message} (403)")
    assert said.startswith(f"not allowed to {right}: {who} needs a {kind}")
    assert ("--namespace" in said) == ("list pods" in right)
    assert isinstance(survey_error(KubeForbiddenError(message)), MissingRightError)
    assert not isinstance(survey_error(KubeForbiddenError("a proxy said no")), MissingRightError)


def test_other_errors_say_what_to_do() -> None:
    assert "is --context the right one?" in str(survey_error(KubeUnreachableError("https://x can't be reached")))
    assert "log in again" in str(survey_error(KubeUnauthorizedError("https://x: Unauthorized (401)")))


class Api:
    """Answers with pods; `nodes` are the cluster's."""

    def __init__(self, pods: list[dict[str, Any]], *nodes: str) -> None:
        self.pods, self.nodes = pods, nodes

    async def request(self, method: str, path: str, **_: object) -> KubeAnswer:
        if path.endswith("/pods"):
            return KubeAnswer({"items": self.pods}, None)
        if path.rpartition("/")[2] not in self.nodes:
            raise KubeNotFoundError("not found", "nodes")
        return KubeAnswer({}, None)


def pod(node: str, phase: str = "Running") -> dict[str, Any]:
    metadata = {"name": f"speil-{node}", "namespace": "speil"}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("api", "node", "words"),
    [
        (Api([pod("node-1"), pod("node-2")]), "nod-1", "there is no node 'nod-1', did you mean node-1 or node-2?"),
        (Api([pod("b"), pod("a")]), "xyz", "there is no node 'xyz': there are a, b"),
        (Api([pod(f"n{number:02}") for number in range(30)]), "xyz", "n08, n09 and more"),
        (Api([pod("a")], "b"), "b", "node b has no pod of speil: does its region label match"),
        (Api([pod("a", "Pending")]), "a", "node a: pod speil-a is Pending: no reason given"),
        (Api([]), "a", "this cluster has no pods of speil"),
    ],
)
async def test_a_node_that_is_not_there(api: Api, node: str, words: str) -> None:
    with pytest.raises(SurveyError) as raised:
        await pod_of_node(cast(KubeApi, api), node)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
