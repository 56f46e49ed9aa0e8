"""Expressions and legends that many panels share.

`sum by ($by)` follows the variable "Group by": region, zone or node. A legend names all three; what is not grouped by
is empty. Series that other programs have too (`process_…`, `http_…`) count only where a speil node exports them: OURS.
"""

from __future__ import annotations

WHO = "{{region}} {{zone}} {{instance}}"
OURS = "* on (job, instance) group_left () group by (job, instance) (speil_build_info)"
GOOD, BAD = "green", "red"


def rate(series: str, *more: str) -> str:
    """The sum of the rates of a series, by `$by` and `more` labels."""
    return f"sum by ({', '.join(('$by', *more))}) (rate({series}[$__rate_interval]))"


def quantile(part: float, series: str, ours: str = "") -> str:
    """A quantile of a histogram, by `$by`."""
    return f"histogram_quantile({part}, sum by ($by, le) (rate({series}[$__rate_interval]) {ours}))"


def or_zero(series: str, other: str) -> str:
    """`series`, and 0 where only `other` exists."""
    return f"({series} or {other} * 0)"
