"""Prints findings as lines or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from speil.finding import Finding, Level


def show(findings: Iterable[Finding], output: str) -> int:
    """Print as `output` (text or json). Returns the exit code: 1 where a check failed."""
    found = list(findings)
    failed = any(finding.level is Level.FAIL for finding in found)
    if output == "json":
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}, indent=1))
    else:
        for finding in found:
            print(f"{finding.level:<5} {finding.check}: {finding.message}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    return int(failed)
