"""`speil region status` and `speil region verify` on running nodes of two regions, without a cluster."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from speil.region.naming import lease_of
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.nodes import RunningNode, running_node, write_layout
from tests.shell.test_cli import running, speil

IMAGE = random_image(5)
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))


@dataclass
class Regions:
    """Two nodes in each of two regions; only the first of a region holds the image."""

    nodes: dict[str, list[RunningNode]]
    lease_files: dict[str, Path]

    @property
    def flags(self) -> list[str]:
        """Where to look."""
        urls = [f"http://{node.host}:{node.metrics_port}" for nodes in self.nodes.values() for node in nodes]
        files = map(str, self.lease_files.values())
        return [f"--metrics-urls={','.join(urls)}", f"--lease-files={','.join(files)}"]


@asynccontextmanager
async def two_regions(folder: Path, *flags: str) -> AsyncIterator[Regions]:
    full, empty = folder / "full", folder / "empty"
    await write_layout(full, IMAGE, "reg.test/app:1")
    regions = Regions({}, {})
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
        for region in ("a", "b"):
            file, lease = folder / f"{region}.lease", lease_of(region)
            names = [f"--leader-election-name={lease.name}", f"--leader-election-namespace={lease.namespace}"]
            regions.lease_files[region] = file
            regions.nodes[region] = []
            for layout in (full, empty):
                node = await stack.enter_async_context(
                    running_node(
                        folder, layout, "--bootstrap-kind=file", f"--lease-file={file}", "--zone=z1", *names, *flags,
                        ports=(5000, 5001, 9090),
                    )
                )  # fmt: skip
                regions.nodes[region].append(node)

        async def found(node: RunningNode) -> bool:
            async with session.get(f"{node.url}/v2/app/blobs/{LAYER}?ns=reg.test") as response:
                return response.status == 200 and len(await response.read()) == len(IMAGE.blobs[LAYER])

        for _, second in regions.nodes.values():
            await eventually(partial(found, second), timeout_seconds=30, what="the second finds the layer")
        yield regions


@pytest.mark.long
async def test_status_and_verify_tell_of_each_region(tmp_path: Path) -> None:
    async with two_regions(tmp_path) as regions:
        code, out, _ = await speil("region", "status", *regions.flags)
        assert code == 0, out
        head, *rows = (re.split(r"  +", line) for line in out.splitlines())
        assert head[:4] == ["region", "lease", "holder", "renewed"]
        assert [row[0] for row in rows] == ["a", "b"]
        for row in rows:
            told = dict(zip(head, row, strict=True))
            assert (told["nodes"], told["kept out"]) == ("2", "0")
            assert told["holder"].startswith("/ip4/127.33.")
            assert re.fullmatch(r"\d+ s ago", told["renewed"])
            assert told["peers"] != "0 B"

        code, out, _ = await speil("region", "status", "--output=json", "--regions=b", *regions.flags)
        (told,) = json.loads(out)
        assert (told["region"], len(told["nodes"]), told["leases"][0]["error"]) == ("b", 2, "")
        assert told["registries"]["reg.test"]["peer_bytes"] >= len(IMAGE.blobs[LAYER])
        assert told["hit_ratio"] > 0
        assert {node["zone"] for node in told["nodes"]} == {"z1"}

        code, out, _ = await speil("region", "verify", "--observe=3s", *regions.flags)
        assert code == 0, out
        assert "fail" not in out
        assert "region a: " in out
        assert "every peer of its 2 nodes is one of them" in out


@pytest.mark.long
async def test_verify_names_what_is_wrong_and_fails(tmp_path: Path) -> None:
    async with two_regions(tmp_path) as regions:
        first, second = regions.nodes["a"]
        async with aiohttp.ClientSession() as session:
            headers = {"X-Spegel-Mirrored": "true", "X-Speil-Region": "b"}
            async with session.get(f"{first.url}/v2/app/blobs/{LAYER}?ns=reg.test", headers=headers) as response:
                assert (response.status, await response.read()) == (404, b"")
        second.process.kill()
        await second.process.wait()
        regions.lease_files["b"].unlink()
        flags = [flag.replace("b.lease", "gone.lease") for flag in regions.flags]
        code, out, _ = await speil("region", "verify", "--observe=100ms", *flags)
        assert code == 1, out
        assert re.search(rf"fail +traffic: node {second.host}:9090 can't be read: http:.* can't be reached", out)
        assert re.search(r"fail +leases: region b has no Lease\n +→ ", out)
        assert re.search(r"warn +traffic: region a rejected attempts from outside, by layer: http 1\n +→ ", out)
        assert "ClientConnectorError" not in out

        code, out, _ = await speil("region", "verify", "--observe=100ms", "--output=json", *flags)
        assert code == 1
        assert json.loads(out)["ok"] is False


async def test_watch_prints_again_until_it_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "x.lease"
    file.write_text('{"metadata": {"annotations": {"speil.dev/region": "x"}}, "spec": {"holderIdentity": "somebody"}}')
    watch = ("region", "status", "--watch", "--interval=100ms", "--output=json", f"--lease-files={file}")
    async with running(*watch) as process, asyncio.timeout(30):
        assert process.stdout is not None
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130, "as an interrupted program ends"
    assert [line[0]["leases"][0]["holder"] for line in lines] == ["somebody"] * 2


async def test_a_plan_is_values_or_a_refusal_without_any() -> None:
    code, out, err = await speil("region", "plan", "--regions=regiona,regionb", "--output=releases")
    assert (code, err) == (0, "")
    assert "leaderElectionName: spegel-leader-election-regiona\nleaderElectionNamespace: spegel-regiona\n" in out
    code, out, err = await speil("region", "plan", "--regions=a,a")
    assert (code, out) == (1, "")
    assert err == "fail region a is named 2 times: name each region once\n"
    code, _, err = await speil("region", "status", "--kubeconfig-path=/nonexistent")
    assert code == 1
    assert "/nonexistent" in err
