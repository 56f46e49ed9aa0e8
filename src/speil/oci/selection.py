"""Which repositories and tags may be announced and served, by the registry filters and the mirrored registries.

A filter is matched as in Spegel: against `registry/repository` for content and against `registry/repository:tag` for a
tag, never against a digest. A tag is excluded if a filter matches either text. So every tag of an excluded repository
is excluded, even if the filter ends in `$`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Pattern(Protocol):
    """A compiled regular expression, of Python or of RE2."""

    @property
    def pattern(self) -> str:
        """The source text of the expression."""

    def search(self, text: str, /) -> object | None:
        """A true value if the expression matches anywhere in `text`."""


def _all_registries(registry: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Selection:
    """`mirrors(host)`: whether a registry host is mirrored. `is_open`: nothing is excluded, so nothing is checked."""

    filters: tuple[Pattern, ...] = ()
    mirrors: Callable[[str], bool] = _all_registries
    is_open: bool = False

    def allows_repository(self, registry: str | None, name: str) -> bool:
        """Whether content of this repository may be announced and served. `registry` is None if it is not known."""
        if self.is_open:
            return True
        if registry is not None and not self.mirrors(registry):
            return False
        return not self._filtered(f"{registry}/{name}" if registry else name)

    def allows_tag(self, registry: str, name: str, tag: str) -> bool:
        """Whether this tag may be announced and resolved for others."""
        return self.allows_repository(registry, name) and not self._filtered(f"{registry}/{name}:{tag}")

    def _filtered(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self.filters)
