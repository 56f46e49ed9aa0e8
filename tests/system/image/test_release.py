"""What the release workflow pushes, pushed to a registry here: the image with its digest, and the chart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from speil.version import __version__
from tests.requirements import ROOT, kube_tool_path
from tests.system.image.archive import OciArchive
from tests.system.lab.namespaces import namespaces
from tests.system.lab.registry import Registry

pytestmark = [pytest.mark.system, pytest.mark.requires("namespaces", "registry", "skopeo", "helm")]
SECONDS_MAX = 120
MANIFEST_TYPES = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


async def test_image_and_chart_are_pushed_with_their_digests(archive: OciArchive) -> None:
    with tempfile.TemporaryDirectory(prefix="speil-release-") as folder, namespaces(1) as (hub, _):
        dist = Path(folder, "dist")
        dist.mkdir()
        shutil.copy(archive.path, dist / "speil-image.tar")
        (dist / "VERSION").write_text(f"{__version__}\n")
        package_chart(dist)
        registry = Registry(hub, Path(folder, "registry"))
        try:
            await registry.start()
            pushed = dict(line.split("=", 1) for line in push(hub.name, dist, registry.url).splitlines())
            assert pushed["image"] == archive.entry()["digest"], "a push that changes bytes would void the signature"
            index = json.loads(get(hub.name, f"{registry.url}/v2/owner/speil/manifests/{__version__}"))
            assert {one["platform"]["architecture"] for one in index["manifests"]} == {"amd64", "arm64"}
            chart = json.loads(get(hub.name, f"{registry.url}/v2/owner/charts/speil/manifests/{pushed['chart']}"))
            assert chart["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
            assert chart["annotations"]["org.opencontainers.image.version"] == __version__
        finally:
            registry.close()


def package_chart(dist: Path) -> None:
    """`make chart`."""
    command = [sys.executable, "-m", "scripts.package_chart", "--output", str(dist)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=SECONDS_MAX)


def push(namespace: str, dist: Path, url: str) -> str:
    """The script of the workflow, in the registry's network."""
    path = f"{kube_tool_path('helm').parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PLAIN_HTTP": "1", "HOME": str(dist)}
    command = ["ip", "netns", "exec", namespace, str(ROOT / "scripts/push_release.sh"), str(dist), f"{url[7:]}/owner"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(namespace: str, url: str) -> str:
    """GET a manifest."""
    code = f"import sys,urllib.request as u; r=u.Request(sys.argv[1],headers={{'Accept': {MANIFEST_TYPES!r}}}); " \
        "print(u.urlopen(r, timeout=10).read().decode())"  # fmt: skip
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS_MAX).stdout
