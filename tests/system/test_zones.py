"""Two zones in network namespaces: what crosses between them is captured on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from speil.oci.digest import Digest
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.conftest import need
from tests.shell.nodes import write_layout
from tests.system.lab.cable import capturing
from tests.system.lab.namespaces import Namespace, namespaces
from tests.system.lab.processes import LabProcess

pytestmark = pytest.mark.system
IMAGE = random_image(34, (20_000_000, 6_000_000, 300_000))
TAKEN = sum(map(len, IMAGE.blobs.values()))
REGISTRY_PORT = 5000


@dataclass
class Lab:
    """Four hosts: a holder and an empty node in zone a, the same in zone b."""

    hub: Namespace
    holder_a: Namespace
    holder_b: Namespace
    empty_a: Namespace
    empty_b: Namespace
    processes: dict[str, LabProcess]


@asynccontextmanager
async def lab(directory: Path) -> AsyncIterator[Lab]:
    need("namespaces")
    with namespaces(4) as (hub, spaces), contextlib.ExitStack() as stack:
        holder_a, holder_b, empty_a, empty_b = spaces
        found = Lab(hub, holder_a, holder_b, empty_a, empty_b, {})
        await write_layout(directory / "full", IMAGE, "reg.test/lab/app:1")
        seeds = ",".join(f"/ip4/{space.address}/tcp/5001" for space in spaces[:2])
        for space, zone in zip(spaces, "abab", strict=True):
            layout = directory / ("full" if space in spaces[:2] else f"empty-{zone}")
            argv = [
                sys.executable, "-m", "speil", "registry", "--log-format=text", "--store-kind=oci-layout",
                f"--oci-layout-path={layout}", f"--zone={zone}", "--bootstrap-kind=static",
                f"--static-bootstrap-peers={seeds}", "--mirror-resolve-timeout=500ms",
            ]  # fmt: skip
            process = LabProcess(space, argv, directory / f"{space.name}.log")
            found.processes[space.name] = process
            stack.callback(process.stop)
            process.start()
        for space in spaces[2:]:
            await eventually(partial(_knows_both, space), timeout_seconds=60, what="both holders are known")
        yield found


def _knows_both(space: Namespace) -> bool:
    text = _fetch(space, "http://127.0.0.1:9090/metrics").decode()
    records = [line for line in text.splitlines() if line.startswith("speil_provider_records")]
    return bool(records) and float(records[0].split()[-1]) >= 2 * len(IMAGE.blobs)


def _fetch(space: Namespace, *urls: str) -> bytes:
    """The bodies, one behind the other; empty where it fails."""
    script = (
        "import sys,urllib.request as u\n"
        "try:\n for one in sys.argv[1:]: sys.stdout.buffer.write(u.urlopen(one,timeout=30).read())\n"
        "except OSError as error: print(error, file=sys.stderr)\n"
    )
    with space.popen([sys.executable, "-c", script, *urls], stdout=-1, stderr=-3) as process:
        output, _ = process.communicate(timeout=60)
        return bytes(output)


async def pull(space: Namespace) -> None:
    """All of the image through the node's own speil."""

    def url(digest: Digest) -> str:
        kind = "manifests" if b"schemaVersion" in IMAGE.blobs[digest][:200] else "blobs"
        return f"http://127.0.0.1:{REGISTRY_PORT}/v2/lab/app/{kind}/{digest}"

    body = await asyncio.to_thread(_fetch, space, *map(url, IMAGE.blobs))
    assert body == b"".join(IMAGE.blobs.values())


async def test_with_a_holder_in_the_zone_not_a_byte_crosses_and_without_one_all_do(tmp_path: Path) -> None:
    async with lab(tmp_path) as found:
        in_a, in_b = [found.holder_a.address, found.empty_a.address], [found.holder_b.address, found.empty_b.address]
        with capturing(found.hub, REGISTRY_PORT) as capture:
            await pull(found.empty_a)
            await pull(found.empty_b)
        assert capture.total(in_a, in_b) + capture.total(in_b, in_a) == 0
        assert capture.total(in_a, in_a) > TAKEN
        assert capture.total(in_b, in_b) > TAKEN

        found.processes[found.holder_b.name].stop()
        with capturing(found.hub, REGISTRY_PORT) as capture:
            await pull(found.empty_b)
        assert capture.total(in_a, in_b) > TAKEN
