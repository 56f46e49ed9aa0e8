"""What `doctor` and the commands like it share: the check of `--image`, and findings as lines, a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from speil.config import ConfigError
from speil.finding import Finding, Level
from speil.oci.reference import InvalidReferenceError, Reference
from speil.progress.terminal import GREEN, RED, YELLOW, coloured
from speil.setting import one_of
from speil.survey.table import align

OUTPUTS = one_of("text", "wide", "json")
_COLOURS = {Level.OK: GREEN, Level.WARN: YELLOW, Level.FAIL: RED}


def show(findings: Iterable[Finding], output: str, about: Mapping[str, str] | None = None) -> int:
    """Print as `output` (one of OUTPUTS). Returns the exit code: 1 where a check failed.

    `about`: what was looked at, as fields of the JSON and columns of the table.
    """
    found, about = list(findings), about or {}
    failed = any(finding.level is Level.FAIL for finding in found)
    if output == "json":
        print(json.dumps({**about, "ok": not failed, "findings": [asdict(finding) for finding in found]}, indent=1))
    elif output == "wide":
        rows = [(*about.values(), one.level.value, one.check, one.message, one.remedy) for one in found]
        print(align([(*about, "level", "check", "finding", "remedy"), *rows]))
    else:
        for finding in found:
            level = coloured(f"{finding.level:<5}", _COLOURS[finding.level], sys.stdout)
            print(f"{level} {finding.check}: {finding.message}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    return int(failed)


def check_image(image: str) -> None:
    """Raises ConfigError where `--image` is set and is no reference of an image."""
    if not image:
        return
    try:
        Reference.parse(image)
    except InvalidReferenceError as error:
        raise ConfigError(f"--image: {error}") from error
