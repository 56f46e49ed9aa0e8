"""`speil region verify`: checks Leases, elections and traffic; exit code 1 if a check fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from speil.cli.app import CommandError
from speil.cli.findings import show
from speil.finding import Finding
from speil.overview.verify import verify
from speil.setting import duration, one_of, setting
from speil.survey.leases import SurveyError
from speil.survey.look import SurveySettings, look


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    survey: SurveySettings
    observe: float = setting(duration, 5.0, help="How long to watch elections and traffic; pull images meanwhile.")
    output: str = setting(one_of("text", "json"), "text", help="How to print the findings.")


def run(settings: Settings) -> int:
    """Read twice, compare, print. Returns the exit code."""
    try:
        return show(asyncio.run(_findings(settings)), settings.output)
    except SurveyError as error:
        raise CommandError(str(error)) from error


async def _findings(settings: Settings) -> list[Finding]:
    before = await look(settings.survey)
    await asyncio.sleep(settings.observe)
    return list(verify(before, await look(settings.survey), settings.observe))
