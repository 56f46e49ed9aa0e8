"""Checks a built site: each link inside leads to a page and an anchor, and no page loads anything from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}
_ELSEWHERE_IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


@dataclass
class _Page(HTMLParser):
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        loads = tag != "link" or bool(_LOADING_RELATIONS & set(given.get("rel", "").split()))
        if loads and (target := given.get(_LOADS.get(tag, ""))):
            self.loaded.append(target)


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the site in a folder, a line for each."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = page = _Page()
        page.feed(path.read_text())
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loaded:
            if urlsplit(target).netloc:
                yield f"{name} loads {target}"
            elif not target.startswith("data:") and not _file(path, target).exists():
                yield f"{name} loads {target}, which is not there"
        for target in page.links:
            yield from (f"{name} links to {target}: {problem}" for problem in _broken(path, target, pages))
    for path in sorted(site.rglob("*.css")):
        for target in _ELSEWHERE_IN_CSS.findall(path.read_text()):
            yield f"{path.relative_to(site)} loads {target}"


def _broken(path: Path, target: str, pages: dict[Path, _Page]) -> Iterator[str]:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return  # elsewhere: this check uses no network
    there = _file(path, target) if parts.path else path
    if there not in pages:
        if not there.exists():
            yield "there is no such page"
    elif parts.fragment and unquote(parts.fragment) not in pages[there].ids:
        yield "there is no such anchor"


def _file(path: Path, target: str) -> Path:
    return (path.parent / unquote(urlsplit(target).path)).resolve()
