"""Build the site: `make site`. A warning of Sphinx, a broken link and anything loaded from elsewhere are errors."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from scripts.site.check import problems
from scripts.site.markdown import LinkError, write_sources
from sphinx.cmd.build import main as sphinx_build

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Build, check, and say where it is. 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "site")
    parser.add_argument("--screenshots", type=Path, default=ROOT / "dist" / "screenshots", help="a folder of PNG files")
    chosen = parser.parse_args()
    output: Path = chosen.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="speil-site-") as folder:
        sources, trees = Path(folder, "sources"), Path(folder, "trees")
        sources.mkdir()
        try:
            write_sources(ROOT, sources, chosen.screenshots)
        except LinkError as error:
            print(f"make site: {error}", file=sys.stderr)
            return 1
        configuration = str(Path(__file__).parent)
        strictly = ["-W", "--keep-going", "-q", "-b", "html"]
        if sphinx_build([*strictly, "-c", configuration, "-d", str(trees), str(sources), str(output)]):
            return 1
    found = list(problems(output))
    for problem in found:
        print(f"make site: {problem}", file=sys.stderr)
    if not found:
        count = len(list(output.rglob("*.html")))
        print(f"{output.relative_to(ROOT) if output.is_relative_to(ROOT) else output}: {count} pages, links are right")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
