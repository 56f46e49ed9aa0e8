"""`speil region doctor NODE` and `kubectl speil doctor NODE`: runs `speil doctor` in the pod of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speil.cli.findings import OUTPUTS, check_image, show
from speil.cli.surveying import run_survey
from speil.finding import Finding, Level
from speil.progress import Progress
from speil.setting import boolean, setting, text
from speil.survey.error import SurveyError
from speil.survey.look import ClusterSettings
from speil.survey.pod_exec import Kubectl, document_of
from speil.survey.pods import Pod, pod_of_node

CONTAINER = "registry"  # the chart's


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    cluster: ClusterSettings
    node: str = setting(text, "", required=True, positional=True, help="The node, as `kubectl get nodes` names it.")
    namespace: str = setting(text, "", also=("-n",), help="Where speil's pods are. Empty: in any namespace.")
    image: str = setting(
        text, "", help="Pull this image through the node's containerd and check that its requests arrive."
    )
    output: str = setting(OUTPUTS, "text", also=("-o",), help="How to print the findings. wide: one line for each.")
    quiet: bool = setting(boolean, False, also=("-q",), help="Show no progress on stderr.")
    kubectl: str = setting(text, "kubectl", help="The program that runs the command in the pod.")


def run(settings: Settings) -> int:
    """Find the pod, run doctor in it, print. Returns the exit code: 1 where a check failed."""
    check_image(settings.image)
    pod, found = run_survey(_findings(settings))
    return show(found, settings.output, {"node": pod.node, "namespace": pod.namespace, "pod": pod.name})


async def _findings(settings: Settings) -> tuple[Pod, list[Finding]]:
    command = ["speil", "doctor", "--output=json", *([f"--image={settings.image}"] if settings.image else [])]
    with Progress(quiet=settings.quiet) as progress:
        progress.stage(f"looking for the pod of node {settings.node}")
        async with settings.cluster.api() as api:
            pod = await pod_of_node(api, settings.node, settings.namespace)
        progress.stage(f"running doctor in pod {pod.namespace}/{pod.name}")
        document = await document_of(
            Kubectl(settings.kubectl, settings.cluster), pod, CONTAINER, command, progress.note
        )
    return pod, _parse(document)


def _parse(document: dict[str, Any]) -> list[Finding]:
    """The findings of a doctor, which may be of another version. Raises SurveyError."""
    try:
        return [
            Finding(str(one["check"]), Level(one["level"]), str(one["message"]), str(one.get("remedy", "")))
            for one in document["findings"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SurveyError(f"doctor in the pod printed something else than findings: {error!r}") from error
