"""RFC 1123 labels: the names that a region, a zone and a Kubernetes namespace may have.

A region's name becomes part of a namespace, a Lease's name, a protocol id and a metric label. A DNS label fits all of
them unescaped. The value of a node's label may have more characters: `East_US.1` is one.
"""

from __future__ import annotations

import re

LABEL_CHARS_MAX = 63  # RFC 1123 §2.1, as Kubernetes applies it
SUBDOMAIN_CHARS_MAX = 253  # a Lease's name may be a DNS subdomain
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)  # of a node's label
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")


class RegionError(ValueError):
    """Region, zone or names are wrong or contradict each other. The message names the setting to change."""


def is_label(text: str) -> bool:
    """Whether `text` is an RFC 1123 label."""
    return len(text) <= LABEL_CHARS_MAX and _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether `text` is a DNS subdomain, which a Lease's name has to be."""
    return len(text) <= SUBDOMAIN_CHARS_MAX and _SUBDOMAIN.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Whether `text` is a valid label value in Kubernetes, and not empty."""
    return len(text) <= LABEL_CHARS_MAX and _VALUE.fullmatch(text) is not None


def check_label(text: str, source: str) -> str:
    """Returns `text` if it is an RFC 1123 label. Raises RegionError, which names `source`."""
    if not is_label(text):
        raise RegionError(
            f"{source}: {text!r} is not a valid name: use at most {LABEL_CHARS_MAX} lower-case letters, digits and "
            "'-', beginning and ending with a letter or digit, such as eu-west-1"
        )
    return text
