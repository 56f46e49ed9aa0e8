"""What the image says of its contents: an SBOM (CycloneDX), dpkg's status for scanners, and the licences."""

from __future__ import annotations

import json
import sys
import uuid
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.image.debian import Package, control
from scripts.image.identity import Identity
from scripts.write_sbom import LICENCES

SBOM = "usr/share/speil/sbom.cdx.json"
# a file for each package, as scanners know it from other images without dpkg
STATUS_FOLDER = "var/lib/dpkg/status.d"
_DISTRIBUTION = "debian-12"


def write_status(package: Package, file: Path, root: Path) -> None:
    """The control file of an unpacked package. Exits where its licences are not in the image."""
    target = root / STATUS_FOLDER / package.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(control(file))


def write_sbom(base: Path, application: Path, architecture: str, identity: Identity) -> None:
    """The SBOM of both trees, in the application's. Exits where a package has no licence."""
    site = "usr/lib/python3/dist-packages"
    components = [_debian(base, file, architecture) for file in sorted((base / STATUS_FOLDER).iterdir())]
    components += [_python(folder) for folder in sorted((base / site).glob("*.dist-info"))]
    (own,) = (application / site).glob("speil-*.dist-info")
    subject = _python(own)
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": identity.created,
            "component": subject | {"type": "application"},
            "properties": [
                {"name": "speil:architecture", "value": architecture},
                {"name": "speil:commit", "value": identity.commit},
            ],
        },
        "components": components,
        "dependencies": [
            {"ref": subject["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]},
        ],
    }
    text = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, text).urn
    target = application / SBOM
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def _debian(root: Path, status: Path, architecture: str) -> dict[str, Any]:
    fields = HeaderParser().parsestr(status.read_text())
    name, version = fields["Package"], fields["Version"]
    if not (root / "usr/share/doc" / name / "copyright").is_file():
        sys.exit(f"the image has no licence of {name}: usr/share/doc/{name}/copyright is missing")
    qualifiers = f"arch={fields['Architecture']}&distro={_DISTRIBUTION}"
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?{qualifiers}"
    licence = {"license": {"name": f"see /usr/share/doc/{name}/copyright", "acknowledgement": "declared"}}
    return _component(name, version, purl, licence)


def _python(folder: Path) -> dict[str, Any]:
    fields = HeaderParser().parsestr((folder / "METADATA").read_text())
    name, version = fields["Name"], fields["Version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}"
    return _component(name, version, purl, _licence(fields))


def _component(name: str, version: str, purl: str, licence: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [licence],
    }


def _licence(fields: Message) -> dict[str, Any]:
    if expression := fields["License-Expression"]:
        return {"expression": expression, "acknowledgement": "declared"}
    name = fields["License"] or LICENCES.get(fields["Name"])
    if not name or "\n" in name:
        found = [line.rpartition("::")[2].strip() for line in fields.get_all("Classifier", []) if "License ::" in line]
        name = found[0] if found else None
    if not name:
        sys.exit(f"{fields['Name']} declares no licence: read it in its wheel and add it to LICENCES")
    return {"license": {"name": name, "acknowledgement": "declared"}}
