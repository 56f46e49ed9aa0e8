"""The upstream: Debian's docker-registry in the hub, its access log as the count of what left it."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from tests.system.lab.namespaces import Namespace
from tests.system.lab.processes import LabProcess

PORT = 5000
_CONFIG = """version: 0.1
log: {{level: info, formatter: json, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: 0.0.0.0:{port}}}
{auth}"""
_AUTH = 'auth: {{htpasswd: {{realm: lab, path: "{directory}/htpasswd"}}}}\n'
LOGIN = ("puller", "region-secret-of-nobody")
HTPASSWD = f"{LOGIN[0]}:$2a$05$.u1FJ1YujAgAOKGqzxsEQeO5otdYO7B7VoDwJvI8GU6k.SPPyXABy\n"  # bcrypt: all that it knows
_GET = re.compile(r'"GET /v2/\S+?/(?:blobs|manifests)/(sha256:[0-9a-f]{64}|[^/\s?]+)\S* HTTP/1\.[01]" (20[06])')
_SERVED = re.compile(
    r'(?m)^(\S+) - - \[[^]]*\] "GET /v2/\S+?/(blobs|manifests)/([^/\s?]+)\S* HTTP/1\.[01]" 20[06] (\d+)'
)
_SENT = re.compile(r'(?m)^(\S+) - - \[[^]]*\] "GET \S+ HTTP/1\.[01]" 20[06] (\d+)')


@dataclass(frozen=True, slots=True)
class Served:
    """A GET with a body: who asked (its address), for what, and how many bytes of it were sent."""

    client: str
    kind: str
    reference: str
    size: int


class Registry:
    """A registry at `url`, reachable from all nodes; a private one asks for LOGIN."""

    def __init__(self, hub: Namespace, directory: Path, *, private: bool = False) -> None:
        directory.mkdir(parents=True)
        config = directory / "config.yml"
        auth = _AUTH.format(directory=directory) if private else ""
        config.write_text(_CONFIG.format(directory=directory, port=PORT, auth=auth))
        (directory / "htpasswd").write_text(HTPASSWD)
        self._login = LOGIN if private else None
        self.url = f"http://{hub.address}:{PORT}"
        self._hub = hub
        self._process = LabProcess(hub, ["docker-registry", "serve", str(config)], directory / "registry.log")
        self._counted_from = 0
        self.pushed = directory / "push"  # the content that was uploaded, by the hex of its digest

    async def start(self) -> None:
        """Start, and wait until it answers."""
        self._process.start()
        await eventually(lambda: "listening on" in self._process.log_text(), what="the registry listens")

    def push(self, image: BuiltImage, name: str, tag: str) -> None:
        """Upload an image (from inside the hub: nothing of it crosses the nodes' links)."""
        script = self._process.log.parent / "push.py"
        script.write_text(Path(__file__).with_name("push.py").read_text())
        folder = self.pushed
        folder.mkdir(exist_ok=True)
        order = sorted(
            image.blobs, key=lambda digest: (image.kind(digest) == "manifests", digest == image.index.digest)
        )
        plan = []
        for digest in order:
            (folder / digest.hex).write_bytes(image.blobs[digest])
            plan.append({"digest": str(digest), "file": str(folder / digest.hex), "type": image.media_types[digest]})
        document = {"url": self.url, "name": name, "tag": tag, "blobs": plan, "login": self._login}
        (folder / "plan.json").write_text(json.dumps(document))
        self._hub.run("python3", str(script), str(folder / "plan.json"))
        self.forget()

    def remove(self, image: BuiltImage) -> None:
        """Drop all blobs of an image, manifests among them, as a registry does that has moved its tag."""
        blobs = self._process.log.parent / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        for digest in image.blobs:
            shutil.rmtree(blobs / digest.hex[:2] / digest.hex)

    def forget(self) -> None:
        """Count from now on."""
        self._counted_from = len(self._process.log_text())

    def bytes_sent(self, client: str) -> int:
        """Body bytes of the GETs of a host (its address) since `forget`."""
        log = self._process.log_text()[self._counted_from :].replace('\\"', '"')
        return sum(int(match[2]) for match in _SENT.finditer(log) if match[1] == client)

    def served(self) -> list[Served]:
        """GETs that were served since `forget`, also those that broke off."""
        log = self._process.log_text()[self._counted_from :].replace('\\"', '"')
        return [Served(match[1], match[2], match[3], int(match[4])) for match in _SERVED.finditer(log)]

    def gets(self) -> Counter[str]:
        """GETs that were served since `forget`, by digest (or tag)."""
        return Counter(
            match[1] for match in _GET.finditer(self._process.log_text()[self._counted_from :].replace('\\"', '"'))
        )

    def close(self) -> None:
        """End it."""
        self._process.stop()
