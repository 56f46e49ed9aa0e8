"""Makes Sphinx's sources of the repository's pages: links lead to pages of the site, or to files on GitHub."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from scripts.site import flowchart, sequence_diagram
from scripts.site.drawing import DiagramError
from scripts.site.pages import CHAPTERS, SCREENSHOTS, names, source

GITHUB = "https://github.com/speil-dev/speil"
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_FENCE = re.compile(r" *(```|~~~)")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
# the first line of a Mermaid diagram → what draws it. GitHub draws them with Mermaid, which is megabytes of script.
_DIAGRAMS = {"sequenceDiagram": sequence_diagram.drawn, "flowchart LR": flowchart.drawn}
# how a picture was taken, by the end of its name → options of Sphinx's `image`
_LOOKS = {"light": (":class: only-light",), "dark": (":class: only-dark",), "narrow": (":width: 240px",)}


class LinkError(Exception):
    """A link leads nowhere; the message has the page and the target."""


def write_sources(root: Path, target: Path, screenshots: Path) -> None:
    """Write all pages of the repository at `root` into the empty folder `target`. Raises LinkError."""
    pages = {source(name): name for name in names()}
    pictures = sorted(screenshots.glob("*.png")) if screenshots.is_dir() else []
    for path, name in pages.items():
        text = "".join(relinked((root / path).read_text(), path, pages, root))
        (target / f"{name}.md").write_text(
            with_diagrams(text, str(path)) + (navigation(bool(pictures)) if name == "index" else "")
        )
    if pictures:
        for picture in pictures:
            shutil.copy(picture, target / picture.name)
        (target / f"{SCREENSHOTS}.md").write_text(gallery([picture.name for picture in pictures]))


def with_diagrams(text: str, page: str) -> str:
    """The page with its diagrams as pictures. One that can't be drawn stays text, and a line on stderr says why."""
    heading = text.partition("\n")[0].removeprefix("# ")

    def picture(found: re.Match[str]) -> str:
        kind, *lines = [line.strip() for line in found[1].splitlines() if line.strip()]
        try:
            if kind not in _DIAGRAMS:
                raise DiagramError(f"only {', '.join(_DIAGRAMS)} can be drawn, not {kind}")
            return f"```{{raw}} html\n{_DIAGRAMS[kind](lines, heading)}\n```\n"
        except DiagramError as error:
            print(f"make site: a diagram of {page} stays text: {error}", file=sys.stderr)
            return f"```text\n{found[1]}```\n"

    return _MERMAID.sub(picture, text)


def relinked(text: str, path: PurePosixPath, pages: dict[PurePosixPath, str], root: Path) -> Iterator[str]:
    """The lines of the page `path`, with the links of the site. Raises LinkError."""
    is_code = False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            is_code = not is_code
        yield line if is_code else _LINK.sub(lambda found: _target(found[1], path, pages, root), line)


def _target(link: str, path: PurePosixPath, pages: dict[PurePosixPath, str], root: Path) -> str:
    file, hash_sign, anchor = link.partition("#")
    if not file or re.match(r"[a-z]+:", file):
        return link
    there = PurePosixPath(os.path.normpath(path.parent / file))
    if there in pages:
        return f"{pages[there]}.md{hash_sign}{anchor}"
    if there.is_relative_to("..") or not (root / there).exists():
        raise LinkError(f"{path} links to {link}, which is not there")
    return f"{GITHUB}/{'tree' if (root / there).is_dir() else 'blob'}/main/{there}{hash_sign}{anchor}"


def navigation(has_screenshots: bool) -> str:
    """The chapters, as Sphinx reads them at the end of the home page."""
    parts = []
    for chapter in CHAPTERS:
        pages = [name for name in chapter.pages if name != SCREENSHOTS or has_screenshots]
        parts.append("\n".join(["", "```{toctree}", f":caption: {chapter.title}", ":hidden:", *pages, "```", ""]))
    return "".join(parts)


def gallery(pictures: Sequence[str]) -> str:
    """A page of the pictures. `NAME-light.png` and `NAME-dark.png` are one: the reader's theme chooses."""
    parts = ["# Screenshots\n", "The pages of speil, as the browser tests of this version saw them.\n"]
    titled = set[str]()
    for picture in pictures:
        subject, _, look = picture.removesuffix(".png").rpartition("-")
        if look not in _LOOKS:
            subject, look = picture.removesuffix(".png"), ""
        title = subject.replace("-", " ").replace("_", " ").capitalize()
        if title not in titled:
            titled.add(title)
            parts.append(f"## {title}\n")
        parts += ["```{image} " + picture, f":alt: {title}", *_LOOKS.get(look, ()), "```\n"]
    return "\n".join(parts)
