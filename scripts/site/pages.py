"""The pages of the site: which file of the repository each one is, and in which order they stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

HOME = PurePosixPath("README.md")
# name in the site → file in the repository
ELSEWHERE = {
    "index": HOME,
    "chart": PurePosixPath("charts/speil/README.md"),
    "contributing": PurePosixPath("CONTRIBUTING.md"),
    "security": PurePosixPath("SECURITY.md"),
    "changelog": PurePosixPath("CHANGELOG.md"),
}
SCREENSHOTS = "screenshots"  # made here, where there are any


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading of the navigation, and the names of its pages."""

    title: str
    pages: tuple[str, ...]


CHAPTERS = (
    Chapter("Start", ("install", "first-two-regions", "migrating-from-spegel")),
    Chapter("How it works", ("how-a-pull-works", "regions", "faq")),
    Chapter("Operate", ("operations", "web", "commands", "chart", "image", SCREENSHOTS)),
    Chapter("Reference", ("settings", "metrics", "benchmarks", "faults")),
    Chapter("Decisions", ("decisions", "architecture")),
    Chapter("Project", ("contributing", "security", "changelog")),
)


def source(name: str) -> PurePosixPath:
    """The file of a page in the repository."""
    return ELSEWHERE.get(name, PurePosixPath("docs", f"{name}.md"))


def names() -> list[str]:
    """All pages that are files of the repository."""
    return ["index", *(name for chapter in CHAPTERS for name in chapter.pages if name != SCREENSHOTS)]
