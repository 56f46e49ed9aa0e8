"""Write dist/speil.cdx.json: every Python package that a node runs, with version and licence (CycloneDX 1.6).

The packages are those of uv.lock without the development groups, installed into a folder of their own and read by
cyclonedx-py. Fails where a package of the lock is missing or has no licence. The same lock gives the same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
TARGET = ROOT / "dist" / "speil.cdx.json"
# their metadata names none; read from the LICENSE file in the wheel
LICENCES = {"protobuf": "BSD-3-Clause"}


def main() -> None:
    """See the module."""
    python = (ROOT / ".tools" / "base-python").read_text().strip()
    with tempfile.TemporaryDirectory(prefix="speil-sbom-") as folder:
        env, found = Path(folder, "env"), Path(folder, "sbom.json")
        _uv("sync", "--no-dev", "--no-install-project", "--python", python, UV_PROJECT_ENVIRONMENT=str(env))
        _uv(
            "run", "--only-group", "sbom", "--isolated", "--python", python,
            "cyclonedx-py", "environment", str(env), "--pyproject", "pyproject.toml", "--output-reproducible",
            "-o", str(found), UV_PROJECT_ENVIRONMENT=str(Path(folder, "tool")),
        )  # fmt: skip
        document = json.loads(found.read_text())
    names = set()
    for component in document["components"]:
        names.add(_normal(component["name"]))
        if not component.get("licenses"):
            _add_licence(component)
    if missing := _locked() - names:
        sys.exit(f"packages of uv.lock are missing in the SBOM: {', '.join(sorted(missing))}")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{TARGET.relative_to(ROOT)}: {len(names)} packages")


def _add_licence(component: dict[str, Any]) -> None:
    name = component["name"]
    if name not in LICENCES:
        sys.exit(f"{name} declares no licence: read it in its wheel and add it to LICENCES")
    component["licenses"] = [{"license": {"id": LICENCES[name], "acknowledgement": "declared"}}]


def _locked() -> set[str]:
    """The packages that a node runs on this machine, as uv.lock has them."""
    text = _uv("export", "--no-dev", "--no-emit-project", "--no-hashes", "--no-annotate", "--no-header")
    requirements = [line.partition("==")[0] for line in text.splitlines() if "==" in line and ";" not in line]
    return {_normal(name) for name in requirements}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _uv(command: str, *arguments: str, **environ: str) -> str:
    argv = [str(UV), command, "--quiet", "--frozen", *arguments]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"uv {command} failed:\n{done.stderr[-2000:]}")
    output: str = done.stdout
    return output


if __name__ == "__main__":
    main()
