"""The documentation's site: each page has a place, links are rewritten and checked. `make site` builds it in CI."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from scripts.site.check import problems
from scripts.site.markdown import GITHUB, LinkError, gallery, navigation, relinked, with_diagrams, write_sources
from scripts.site.pages import SCREENSHOTS, names, source

from tests.requirements import ROOT

PAGES = {source(name): name for name in names()}


def test_every_page_of_docs_has_one_place_in_the_navigation() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    placed = [source(name).as_posix() for name in names()]
    assert sorted(path for path in placed if path.startswith("docs/")) == sorted(files)
    assert len(placed) == len(set(placed))


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("README.md", "docs/operations.md#metrics", "operations.md#metrics"),
        ("docs/operations.md", "../charts/speil/README.md#monitoring", "chart.md#monitoring"),
        ("docs/operations.md", "regions.md", "regions.md"),
        ("docs/operations.md", "#ports", "#ports"),
        ("docs/operations.md", "../charts/speil/files/rules.yaml", f"{GITHUB}/blob/main/charts/speil/files/rules.yaml"),
        ("docs/image.md", "../scripts/image", f"{GITHUB}/tree/main/scripts/image"),
        ("charts/speil/README.md", "../../docs/image.md", "image.md"),
        ("docs/faq.md", "https://github.com/spegel-org/spegel", "https://github.com/spegel-org/spegel"),
    ],
)
def test_links_lead_to_pages_of_the_site_else_to_files_on_github(page: str, link: str, there: str) -> None:
    assert "".join(relinked(f"see [it]({link}).", PurePosixPath(page), PAGES, ROOT)) == f"see [it]({there})."


@pytest.mark.parametrize("link", ["nothing.md", "../nothing", "../../outside.md"])
def test_a_link_to_nothing_is_an_error_with_its_page(link: str) -> None:
    with pytest.raises(LinkError, match=f"docs/faq.md links to {link}"):
        list(relinked(f"[it]({link})", PurePosixPath("docs/faq.md"), PAGES, ROOT))


def test_code_is_left_as_it_is() -> None:
    code = "```\n[it](nothing.md)\n```\n"
    assert "".join(relinked(code, PurePosixPath("docs/faq.md"), PAGES, ROOT)) == code


def test_all_pages_are_written_with_the_pictures_where_there_are_any(tmp_path: Path) -> None:
    without, pictures, with_them = tmp_path / "without", tmp_path / "pictures", tmp_path / "with"
    for folder in (without, pictures, with_them):
        folder.mkdir()
    write_sources(ROOT, without, tmp_path / "none")
    assert {path.stem for path in without.iterdir()} == set(names())
    assert SCREENSHOTS not in (without / "index.md").read_text()
    assert "```mermaid" not in "".join(path.read_text() for path in without.iterdir())
    (pictures / "node-page-light.png").write_bytes(b"1")
    (pictures / "node-page-dark.png").write_bytes(b"2")
    write_sources(ROOT, with_them, pictures)
    assert f"\n{SCREENSHOTS}\n" in (with_them / "index.md").read_text()
    assert (with_them / "node-page-dark.png").read_bytes() == b"2"


def test_pictures_of_both_themes_are_one_picture_of_the_gallery() -> None:
    page = gallery(["all_regions.png", "node-dark.png", "node-light.png", "node-narrow.png"])
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Screenshots", "## All regions", "## Node",
    ]  # fmt: skip
    assert page.count("only-dark") == page.count("only-light") == 1
    assert ":alt: All regions" in page
    assert ":width: 240px" in page
    assert f"\n{SCREENSHOTS}\n" in navigation(True)


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="b.html">', "a.html links to b.html: there is no such page"),
        ('<a href="#there">', "a.html links to #there: there is no such anchor"),
        ('<script src="https://cdn.example/x.js">', "a.html loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "a.html loads //fonts.example/x.css"),
        ('<img src="x.png">', "a.html loads x.png, which is not there"),
    ],
)
def test_the_check_finds_what_is_broken_or_loaded_from_elsewhere(tmp_path: Path, html: str, problem: str) -> None:
    (tmp_path / "a.html").write_text(html)
    assert list(problems(tmp_path)) == [problem]


def test_the_check_passes_what_is_right_and_reads_stylesheets(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="x">A</h1><a href="https://elsewhere.example">')
    (tmp_path / "b.html").write_text('<a href="a.html#x"><link rel="stylesheet" href="s.css">')
    (tmp_path / "s.css").write_text("body { background: url(a.svg) }")
    assert list(problems(tmp_path)) == []
    (tmp_path / "s.css").write_text('@import "https://fonts.example/css";')
    assert list(problems(tmp_path)) == ["s.css loads https://fonts.example/css"]


SEQUENCE = "sequenceDiagram\nparticipant A as one <1>\nparticipant B as two\nA->>B: ask\nB-->>A: answer\n"
FLOW = "flowchart LR\n    R[root] -->|words| A[left]\n    A --> B\n    A --> C[right]\n"


def diagram(source_text: str) -> str:
    return with_diagrams(f"# A pull\n```mermaid\n{source_text}```\nText.\n", "page.md")


@pytest.mark.parametrize(
    ("source_text", "words", "arrows"),
    [(SEQUENCE, ["one &lt;1&gt;", "two", "ask", "answer"], 2), (FLOW, ["root", "words", "left", "B", "right"], 3)],
)
def test_diagrams_are_pictures(source_text: str, words: list[str], arrows: int) -> None:
    page = diagram(source_text)
    assert "<title>A pull</title>" in page
    assert [one for one in words if f">{one}<" not in page] == []
    assert page.count("marker-end") == arrows
    assert "mermaid" not in page
    assert page.endswith("```\nText.\n")


@pytest.mark.parametrize(
    ("source_text", "reason"),
    [
        (f"{SEQUENCE}A -x B: ask\n", "A -x B: ask"),
        (f"{FLOW}R --> C\n", "two parents"),
        (f"{FLOW}A === C\n", "not an arrow"),
        ("pie\n", "not pie"),
    ],
)
def test_a_diagram_that_cannot_be_drawn_stays_text_with_the_reason(
    source_text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"```text\n{source_text}```" in diagram(source_text)
    said = capsys.readouterr().err
    assert "page.md" in said
    assert reason in said
