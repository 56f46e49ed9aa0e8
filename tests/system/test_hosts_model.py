"""The model of containerd's host resolution, asked of real containerds: who is asked, in which order, with what.

Each tree is put in place, an image is pulled that nobody has, and the requests are compared; then the same with
speil's configuration in front, whose mirror is a stub too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from speil.host_config.nodes import scan
from speil.host_config.proof import folders
from speil.host_config.switch import entries
from speil.host_config.tree import HostConfigError, configure, restore
from speil.hosts_toml.containerd import Generation, Host, resolve
from speil.hosts_toml.document import Mirrors
from speil.store.base import StoreError
from speil.testing.eventually import eventually
from tests.conftest import need
from tests.hosts_trees import FILES, UNREADABLE, text
from tests.system.lab.containerd import Containerd, ContainerdVersion
from tests.system.lab.namespaces import Namespace, namespaces
from tests.system.lab.processes import LabProcess

pytestmark = pytest.mark.system

MIRROR, UP, OTHER, SECURE = 5000, 7001, 7002, 7443
ADDRESS = "10.99.0.1"  # of a registry that is not on this machine, but is
OPENSSL = [
    "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
    "req -newkey rsa:2048 -nodes -keyout own.key -out own.csr -subj /CN=own",
    "x509 -req -in own.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out own.pem -days 2 -extfile names",
]


@dataclass
class Bench:
    """One containerd and the stub that all hosts are."""

    containerd: Containerd
    log: Path
    folder: Path
    generation: Generation
    pulls: int = 0

    async def asked(self, registry: str) -> list[tuple[int, str, str]]:
        """Port, path and the headers that a tree may name, of each resolving request, in order."""
        self.pulls += 1
        self.log.write_text("")
        with pytest.raises(StoreError):
            await self.containerd.pull(f"{registry}/x:{self.pulls}")
        found = []
        for line in self.log.read_text().splitlines():
            port, path, headers = json.loads(line)
            if "/manifests/" in path:
                found.append((port, path.partition("?")[0].rpartition("/x/")[0], _named(headers)))
        return list(dict.fromkeys(found))

    def expected(self, registry: str) -> list[tuple[int, str, str]]:
        """The same by the model, of those that listen and whose certificate is known."""
        tree = folders(scan(entries(self.containerd.certs)), self.containerd.certs)
        hosts = resolve(tree, registry, self.generation, str(self.containerd.certs))
        return list(
            dict.fromkeys(
                (int(host.host.rpartition(":")[2]), host.path, _named({name: ", ".join(v) for name, v in host.header}))
                for host in hosts
                if {"pull", "resolve"} <= host.capabilities and self._answers(host)
            )
        )

    def _answers(self, host: Host) -> bool:
        if host.host.endswith(f":{SECURE}"):
            knows = any(Path(path).name == "ca.crt" for path in host.ca or ())
            return host.scheme == "https" and (knows or host.skip_verify is True)
        return host.scheme == "http" and host.host.rpartition(":")[2] in map(str, (MIRROR, UP, OTHER))


def _named(headers: dict[str, str]) -> str:
    return " ".join(sorted(f"{k.lower()}={v.split(',')[0]}" for k, v in headers.items() if k.lower().startswith("x-")))


@pytest.fixture
async def bench(version: ContainerdVersion) -> AsyncIterator[Bench]:
    """A namespace with one containerd and one stub."""
    need("namespaces")
    with tempfile.TemporaryDirectory(prefix="speil-lab-") as name, namespaces(1) as (_, (space,)):
        folder = Path(name)
        _prepare(folder, space)
        log = folder / "stub.jsonl"
        log.touch()
        secure = f"{SECURE}={folder / 'own.pem'},{folder / 'own.key'}"
        argv = [sys.executable, str(Path(__file__).parent / "lab" / "stub.py"), str(log)]
        stub = LabProcess(space, [*argv, *map(str, (MIRROR, UP, OTHER)), secure], folder / "stub.log")
        containerd = Containerd(version, space, folder / "c")
        try:
            stub.start()
            await eventually(lambda: "ready" in stub.log_text(), what="the stub listens")
            await containerd.start()
            yield Bench(containerd, log, folder, Generation.V1 if version.major == 1 else Generation.V2)
        finally:
            containerd.close()
            stub.stop()


def _prepare(folder: Path, space: Namespace) -> None:
    (folder / "names").write_text(f"subjectAltName=IP:{ADDRESS},IP:127.0.0.1\n")
    for arguments in OPENSSL:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, cwd=folder, timeout=30)
    argv = ["ip", "netns", "exec", space.name, "ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


UP_URL, OTHER_URL, MIRROR_URL = (f"http://127.0.0.1:{port}" for port in (UP, OTHER, MIRROR))
LOCAL, AWAY = f"127.0.0.1:{UP}", f"{ADDRESS}:{SECURE}"
NO_FILES = {"containerd's documentation"}  # it names certificates: without them pulls fail whatever is configured
BOTH, LAST = text("kubespray", UP_URL, OTHER_URL), text("an empty table of hosts", OTHER_URL)
RELATIVE = f'ca = "ca.crt"\n[host."{OTHER_URL}"]\ncapabilities = ["pull", "resolve"]\n'
SECURED = f'server = "{UP_URL}"\n[host."https://{AWAY}"]\n'
TREES: dict[str, tuple[str, dict[str, str]]] = {
    **{one: ("reg.test", {"reg.test/hosts.toml": text(one, UP_URL, OTHER_URL)}) for one in {*FILES} - NO_FILES},
    "port with underscores": ("reg.test:99", {"reg.test_99_/hosts.toml": BOTH, "reg.test:99/hosts.toml": LAST}),
    "port with a colon": ("reg.test:99", {"reg.test:99/hosts.toml": BOTH}),
    "all through _default": ("air.test", {"_default/hosts.toml": BOTH}),
    "_default hidden": ("air.test", {"_default/hosts.toml": BOTH, "air.test/hosts.toml": LAST}),
    "this machine's, without a directory": (LOCAL, {}),
    "this machine's, without a server line": (LOCAL, {f"{LOCAL}/hosts.toml": text("no server", UP_URL, OTHER_URL)}),
    "Docker's certificates": (AWAY, {f"{AWAY}/ca.crt": "CA"}),
    "Docker's certificates, with underscores": (AWAY, {f"{ADDRESS}_{SECURE}_/ca.crt": "CA"}),
    "Docker's certificates in _default": (AWAY, {"_default/ca.crt": "CA"}),
    "no certificates": (AWAY, {}),
    "a relative certificate in _default": (AWAY, {"_default/hosts.toml": RELATIVE, "_default/ca.crt": "CA"}),
    "certificates beside an empty file": (AWAY, {f"{AWAY}/hosts.toml": "", f"{AWAY}/ca.crt": "CA"}),
    "certificates beside a broken file": (AWAY, {f"{AWAY}/hosts.toml": "a = ", f"{AWAY}/ca.crt": "CA"}),
    "certificates beside a file that names none": (AWAY, {f"{AWAY}/hosts.toml": "[host]\n", f"{AWAY}/ca.crt": "CA"}),
    "a CA for a host": ("reg.test", {"reg.test/hosts.toml": f'{SECURED}ca = ["ca.crt"]\n', "reg.test/ca.crt": "CA"}),
    "a CA that is not named": ("reg.test", {"reg.test/hosts.toml": SECURED, "reg.test/ca.crt": "CA"}),
}


def _plant(certs: Path, files: dict[str, str], authority: Path) -> None:
    shutil.rmtree(certs)
    certs.mkdir()
    for name, content in files.items():
        (certs / name).parent.mkdir(exist_ok=True)
        (certs / name).write_bytes(authority.read_bytes() if content == "CA" else content.encode())


async def test_containerd_asks_whom_the_model_says_with_and_without_speil(bench: Bench) -> None:
    certs, wrong, refused = bench.containerd.certs, [], set()
    for name, (registry, files) in TREES.items():
        _plant(certs, files, bench.folder / "ca.crt")
        without, model = await bench.asked(registry), bench.expected(registry)
        if without != model:
            wrong.append(f"{name}: asked {without}, the model says {model}")
        for urls in ((f"https://{registry}",), ()):
            try:
                configure(certs, urls, Mirrors((MIRROR_URL,)), prepend_existing=True)
            except HostConfigError:
                refused.add(name)
                break
            found, model = await bench.asked(registry), bench.expected(registry)
            if found != model:
                wrong.append(f"{name}, speil in front ({urls}): asked {found}, the model says {model}")
            others = [one for one in found if one[0] != MIRROR]
            server_alone = bench.generation is Generation.V1 and "[host" not in files.get(
                f"{registry}/hosts.toml", "[host"
            )
            if (found[:1] != [(MIRROR, "/v2", "")] and name != "a timeout that is none") or (
                others != [one for one in without if one[0] != MIRROR] and not server_alone
            ):
                wrong.append(f"{name}, speil in front ({urls}): asked {found}, without {without}")
            restore(certs)
    assert not wrong, "\n".join(wrong)
    assert refused == {*UNREADABLE, "certificates beside a broken file", "a host inside its table"}
