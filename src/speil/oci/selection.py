"""Which repositories and tags take part: registry filters and mirrored registries, one rule for every path.

A filter is matched as in Spegel: against `registry/repository` for content, against `registry/repository:tag` for a
tag, never against a digest. A tag takes part where both texts are free: of a repository that is kept back no tag is
answered, whatever the filter's end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Pattern(Protocol):
    """A compiled regular expression: Python's or RE2's."""

    @property
    def pattern(self) -> str:
        """Its text."""

    def search(self, text: str, /) -> object | None:
        """Something true where it matches anywhere in `text`."""


def _all_registries(registry: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Selection:
    """`mirrors` tells whether a registry host is mirrored at all; `is_open` where nothing is kept back."""

    filters: tuple[Pattern, ...] = ()
    mirrors: Callable[[str], bool] = _all_registries
    is_open: bool = False

    def allows_repository(self, registry: str | None, name: str) -> bool:
        """Whether content of a repository may be announced and served; `registry` is None where nobody told it."""
        if self.is_open:
            return True
        if registry is not None and not self.mirrors(registry):
            return False
        return not self._filtered(f"{registry}/{name}" if registry else name)

    def allows_tag(self, registry: str, name: str, tag: str) -> bool:
        """Whether a tag may be announced and answered."""
        return self.allows_repository(registry, name) and not self._filtered(f"{registry}/{name}:{tag}")

    def _filtered(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self.filters)
