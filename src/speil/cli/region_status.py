"""`speil region status`: prints all regions as a table or as JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from speil.cli.surveying import run_survey
from speil.setting import boolean, duration, one_of, setting
from speil.survey.error import SurveyError
from speil.survey.look import SurveySettings, look
from speil.survey.table import document, node_table, table


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    survey: SurveySettings
    output: str = setting(
        one_of("table", "wide", "json"),
        "table",
        also=("-o",),
        help="How to print them. wide adds a line for each node, JSON has everything.",
    )
    watch: bool = setting(boolean, False, also=("-w",), help="Print again and again, until interrupted.")
    interval: float = setting(duration, 5.0, help="With --watch: how often.")


def run(settings: Settings) -> int:
    """Read, print; with --watch again and again."""
    run_survey(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    while True:
        views = await look(settings.survey, must_exist=True)
        if not views:
            raise SurveyError(
                "no region was found: is speil installed in this cluster, with --bootstrap-kind kubernetes?"
            )
        if settings.output == "json":
            print(json.dumps(document(views), indent=None if settings.watch else 1), flush=True)
        else:
            print(table(views), flush=True)
            if settings.output == "wide":
                print(f"\n{node_table(views)}", flush=True)
            for view in views:
                for node in view.nodes:
                    if node.error:
                        print(f"{node.name}: {node.error}", flush=True)
        if not settings.watch:
            return
        await asyncio.sleep(max(settings.interval, 0.1))
