"""Runs commands that look at a cluster."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from speil.cli.app import CommandError
from speil.cli.running import run_async
from speil.survey.error import SurveyError

T = TypeVar("T")


def run_survey(main: Coroutine[Any, Any, T]) -> T:
    """See run_async. Raises CommandError where the cluster can't be read."""
    try:
        return run_async(main)
    except SurveyError as error:
        raise CommandError(str(error)) from error
