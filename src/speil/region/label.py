"""RFC 1123 labels: what a region, a zone and a Kubernetes namespace may be called.

A region's name ends up in a namespace, in a Lease's name, in a protocol id and in a metric label; a DNS label fits
all of them unescaped. The value of a node's label is wider: `East_US.1` is one.
"""

from __future__ import annotations

import re

LABEL_CHARS_MAX = 63  # RFC 1123 §2.1, as Kubernetes applies it
SUBDOMAIN_CHARS_MAX = 253  # a Lease's name may be a DNS subdomain
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)  # of a node's label
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")


class RegionError(ValueError):
    """Region, zone or names don't fit: the operator has to change a setting, and the message says which."""


def is_label(text: str) -> bool:
    """Whether `text` is an RFC 1123 label."""
    return len(text) <= LABEL_CHARS_MAX and _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether `text` is a name that Kubernetes takes for a Lease."""
    return len(text) <= SUBDOMAIN_CHARS_MAX and _SUBDOMAIN.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Whether `text` is a value that Kubernetes takes for a label of a node, and not empty."""
    return len(text) <= LABEL_CHARS_MAX and _VALUE.fullmatch(text) is not None


def check_label(text: str, source: str) -> str:
    """`text`, if it is a label. Raises RegionError that names `source`."""
    if not is_label(text):
        raise RegionError(
            f"{source}: {text!r} is not a name for it; use at most {LABEL_CHARS_MAX} lower-case letters, digits and "
            "'-', beginning and ending with a letter or digit, such as eu-west-1"
        )
    return text
