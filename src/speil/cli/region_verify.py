"""`speil region verify`: checks Leases, elections and traffic; exit code 1 if a check fails."""

from __future__ import annotations

from dataclasses import dataclass

from speil.cli.findings import OUTPUTS, show
from speil.cli.surveying import run_survey
from speil.finding import Finding
from speil.overview.verify import verify
from speil.progress import Progress
from speil.setting import boolean, duration, setting
from speil.survey.look import SurveySettings, look


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    survey: SurveySettings
    observe: float = setting(duration, 5.0, help="How long to watch elections and traffic; pull images meanwhile.")
    output: str = setting(OUTPUTS, "text", also=("-o",), help="How to print the findings. wide: one line for each.")
    quiet: bool = setting(boolean, False, also=("-q",), help="Show no progress on stderr.")


def run(settings: Settings) -> int:
    """Read twice, compare, print. Returns the exit code."""
    return show(run_survey(_findings(settings)), settings.output)


async def _findings(settings: Settings) -> list[Finding]:
    with Progress(quiet=settings.quiet) as progress:
        before = await look(settings.survey, progress)
        await progress.wait("watching elections and traffic", settings.observe)
        after = await look(settings.survey, progress)
    return list(verify(before, after, settings.observe))
