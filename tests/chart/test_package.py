"""The package of the chart, as the release pushes it: what helm and Artifact Hub show of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from speil.version import __version__
from tests.requirements import ROOT, kube_tool_path

pytestmark = pytest.mark.requires("helm")
IMAGE = "ghcr.io/example/speil"
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose default image is the release's."""
    folder = tmp_path_factory.mktemp("package")
    command = [sys.executable, "-m", "scripts.package_chart", "--image", IMAGE, "--output", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=SECONDS_MAX)
    return folder / f"speil-{__version__}.tgz"


def helm(*arguments: str) -> str:
    """What helm prints."""
    command = [str(kube_tool_path("helm")), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_MAX).stdout


def test_helm_shows_a_readme_whose_links_lead_somewhere(package: Path) -> None:
    readme = helm("show", "readme", str(package))
    assert readme.lstrip().startswith("# ")
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) > 5
    for link in links:
        assert link.startswith(("https://", "#")), link
    for path in re.findall(rf"/blob/v{__version__}/([^)#]+)", readme):
        assert (ROOT / path).exists(), path


def test_the_package_names_its_home_icon_and_sources(package: Path) -> None:
    chart = yaml.safe_load(helm("show", "chart", str(package)))
    assert chart["version"] == chart["appVersion"] == __version__
    assert chart["home"] in chart["sources"]
    assert (ROOT / chart["icon"].partition("/main/")[2]).exists()
    assert chart["annotations"]["artifacthub.io/license"] == "MIT"
    assert yaml.safe_load(chart["annotations"]["artifacthub.io/links"])


def test_without_values_the_image_is_the_releases(package: Path) -> None:
    rendered = helm("template", "speil", str(package), "--set", "region=eu,createNamespace=true")
    images = set(re.findall(r"image: (.*)", rendered))
    assert {image.strip('"') for image in images} == {f"{IMAGE}:{__version__}"}
    assert f'`"{IMAGE}"`' in helm("show", "readme", str(package))


def test_the_package_has_what_the_templates_read_and_nothing_of_the_machine(package: Path) -> None:
    with tarfile.open(package) as tar:
        names = {name.removeprefix("speil/") for name in tar.getnames()}
    assert {"README.md", "values.schema.json", "files/defaults.json", "files/rules.yaml"} <= names
    assert not any(name.endswith((".orig", ".pyc")) for name in names)
