"""`speil region trace IMAGE` and `kubectl speil trace IMAGE`: from where each node would get the parts of an image."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from speil.cli.app import CommandError
from speil.cli.surveying import run_survey
from speil.config import ConfigError
from speil.progress import Progress
from speil.setting import boolean, one_of, setting, text
from speil.survey.look import SurveySettings
from speil.survey.trace import REQUEST_SECONDS_MAX, NodeTrace, trace_at, trace_in_cluster
from speil.survey.trace_table import document, layer_table, node_table, part_table
from speil.trace.named import TraceError, parse_platform, parse_reference


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    survey: SurveySettings
    image: str = setting(
        text,
        "",
        required=True,
        positional=True,
        help="The image, such as docker.io/library/busybox:1.37.",
    )
    platform: str = setting(text, "", help="Trace it for this platform, such as linux/arm64. Empty: each node's own.")
    measure: bool = setting(
        boolean, False, help="Measure speeds: each node downloads parts of the image from its peers and drops them."
    )
    output: str = setting(
        one_of("table", "wide", "json"),
        "table",
        also=("-o",),
        help="How to print it. wide has a line for each node and part, JSON has everything.",
    )
    quiet: bool = setting(boolean, False, also=("-q",), help="Show no progress on stderr.")


def run(settings: Settings) -> int:
    """Ask the nodes, print. Raises CommandError where no node could be asked, or none knows the image."""
    try:
        image = str(parse_reference(settings.image))
        parse_platform(settings.platform)
    except TraceError as error:
        raise ConfigError(str(error)) from error
    found = run_survey(_traces(settings, image))
    if settings.output == "json":
        print(json.dumps(document(found, image), indent=1))
    elif any(one.parts for one in found):
        print(part_table(found) if settings.output == "wide" else f"{node_table(found)}\n\n{layer_table(found)}")
    sys.stdout.flush()
    for one in found:
        if one.error:
            print(f"{one.node}: {one.error}", file=sys.stderr)
    _judge(image, found)
    return 0


async def _traces(settings: Settings, image: str) -> list[NodeTrace]:
    survey = settings.survey
    query = {"measure": str(settings.measure).lower()} | ({"platform": settings.platform} if settings.platform else {})
    with Progress(quiet=settings.quiet) as progress:
        if survey.metrics_urls:
            return await trace_at(survey.metrics_urls, image, survey.regions, query, progress)
        async with survey.cluster.api(request_seconds_max=REQUEST_SECONDS_MAX) as api:
            return await trace_in_cluster(
                api, image, survey.metrics_port, survey.namespace, survey.regions, query, progress
            )


def _judge(image: str, found: Sequence[NodeTrace]) -> None:
    """Raises CommandError where there is nothing to see."""
    asked = [one for one in found if not one.error]
    if not asked:
        raise CommandError("no node could be traced")
    if not any(one.parts for one in asked):
        why = next((str(one.document.get("does") or "") for one in asked if one.document), "")
        raise CommandError(
            f"no node knows the parts of {image}, of {len(asked)} that were asked. {why} Is the name right?"
        )
