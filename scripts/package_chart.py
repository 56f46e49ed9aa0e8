"""Package the chart for a registry: dist/speil-VERSION.tgz (`make chart`).

In the package the README's links lead to the repository, since the files beside it are not there, and the default image
is the one that the release pushes (`--image`, such as ghcr.io/OWNER/speil).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.build_kube_tools import TOOLS
from scripts.hatch_build import absolute_links

from speil.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "speil"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="", help="the repository of the image; empty: as in values.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder for the package")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="speil-chart-") as folder:
        chart = Path(folder, "speil")
        shutil.copytree(CHART, chart)
        readme = chart / "README.md"
        readme.write_text(absolute_links(readme.read_text(), "charts/speil", __version__))
        if arguments.image:
            name_image(chart, arguments.image)
        print(package(chart, arguments.output))


def name_image(chart: Path, repository: str) -> None:
    """Make a repository the default of values, README and templates."""
    values, readme, defaults = (chart / name for name in ("values.yaml", "README.md", "files/defaults.json"))
    _replace(
        values, r"(?m)^  # -- The image\..*\n  repository: speil$", f"  # -- The image.\n  repository: {repository}"
    )
    _replace(
        readme,
        r'(?m)^\| `image\.repository` \| `"speil"` \| .*$',
        f'| `image.repository` | `"{repository}"` | The image. |',
    )
    document = json.loads(defaults.read_text())
    document["image"]["repository"] = repository
    defaults.write_text(json.dumps(document))


def package(chart: Path, output: Path) -> Path:
    """`helm package`; the file that it wrote."""
    output.mkdir(parents=True, exist_ok=True)
    helm = shutil.which("helm") or str(TOOLS["helm"].path)
    command = [helm, "package", str(chart), "--destination", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"helm package failed: {done.stderr}")
    return output / f"speil-{__version__}.tgz"


def _replace(file: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, lambda _: by, file.read_text())
    if count != 1:
        sys.exit(f"{file.name} has no default image where it should: {pattern}")
    file.write_text(text)


if __name__ == "__main__":
    main()
