"""Regions that have secrets, and one node with --region-networks: what gets through without the secret."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from speil.border.http import TOKEN_HEADER
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.requirements import ROOT
from tests.system.isolation.checks import (
    REGISTRY_PORT,
    Pushed,
    assert_isolated,
    assert_only_refusals,
    pull_twice,
    registry_packets,
    verify,
)
from tests.system.lab.capture import parse_packet
from tests.system.lab.lans import NETWORKS
from tests.system.lab.regions import RegionLab, RegionNode

pytestmark = pytest.mark.system
SAME_LOOKS = 5  # in a row, a second apart: a node announces new content within a second
IPV4 = b"\x08\x00"  # a frame's type
NETWORKS_FLAG = f"--region-networks={NETWORKS['regiona']}"


async def settled_records(lab: RegionLab) -> dict[RegionNode, float]:
    """How many provider records each node has, after the records for its own pulls have arrived."""
    last: list[dict[RegionNode, float]] = []

    async def settled() -> bool:
        await asyncio.sleep(1)
        last.append({node: node.metric("speil_provider_records") for node in lab.nodes})
        return len(last) > SAME_LOOKS and all(look == last[-1] for look in last[-SAME_LOOKS:])

    await eventually(settled, timeout_seconds=60, what="no record comes any more")
    return last[-1]


async def test_a_wrong_region_where_regions_have_secrets_and_networks(lab: RegionLab) -> None:
    """A node label that is wrong gets a node the other region's whole release; a wrong --region but a part of it."""
    wrong, neighbours = lab.regions["regionb"][2], lab.regions["regiona"]
    with_secret = lab.with_secrets()
    with_secret[neighbours[0]].append(NETWORKS_FLAG)
    mark = lab.lans.capture.mark()

    seeds = ",".join(node.multiaddr for node in neighbours)
    part = ["--region=regiona", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
    own_secret = f"--region-secret-file={lab.secrets['regionb']}"
    await lab.configure({**with_secret, wrong: [*part, own_secret]}, fresh=[wrong], alone=[wrong])
    for node, layer in zip(neighbours, (Layer.NETWORK, Layer.SECRET, Layer.SECRET), strict=True):
        await node.keeps_out(layer)
        assert node.said("kept out", layer=layer.value, who=wrong.address, what_to_do="if it belongs to the region")
    await assert_isolated(lab, mark, alone=[wrong])

    wrong.speil.stop()
    wrong.start_with([*lab.documented("regiona"), f"--region-secret-file={lab.secrets['regiona']}", NETWORKS_FLAG])
    await eventually(lambda: not wrong.speil.running, timeout_seconds=30, what="it refuses to start")
    assert wrong.speil.stop() == 2, "the exit code of a wrong configuration"
    assert f"none of this node's addresses ({wrong.address}) is in the networks of region regiona" in wrong.last_words
    assert "its region is set wrong, or a network is missing" in wrong.last_words
    pushed = Pushed(lab, "regionb")
    await wrong.pull(f"{pushed.name}:1")
    await lab.configure(with_secret)
    await assert_isolated(lab, mark)


async def test_a_hostile_node_that_lacks_nothing_but_the_secret(lab: RegionLab) -> None:
    first, second, third = lab.regions["regiona"]
    with_secret = lab.with_secrets()
    with_secret[first].append(NETWORKS_FLAG)
    await lab.configure(with_secret)
    mark = lab.lans.capture.mark()
    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)

    # what somebody in regiona's network can overhear: the requests of true pulls
    target = Pushed(lab, "regiona")
    with lab.lans.tap(second.namespace) as tap:
        await pull_twice(lab, target, second, third, meshed=True)
        tokens = overheard(tap)
    assert {token["target"] for token in tokens if token["method"] == "GET"} >= set(target.targets[1:])
    records = await settled_records(lab)
    before = {(node, layer): node.rejected(layer) for node in lab.nodes for layer in Layer}
    served = lab.peer_bytes("regiona")

    report = attack(lab, [target], tokens)
    assert report["without a secret"] == report["with a guess"] == {"connections": 0, "answers": 0}
    kinds = {answer["kind"] for answer in report["http"]}
    assert len(kinds) == 8, kinds
    for answer in report["http"]:
        assert (answer["status"], answer["bytes"]) == (404, 0), answer
    assert_only_refusals(registry_packets(lab, mark))
    assert lab.peer_bytes("regiona") == served, "no body was sent to anybody"

    def rose(layer: Layer) -> list[bool]:
        return [node.rejected(layer) > before[node, layer] for node in (first, second, third)]

    assert rose(Layer.NETWORK) == [True, False, False], "who is told the region's networks needs no handshake"
    assert rose(Layer.SECRET) == rose(Layer.TOKEN) == rose(Layer.HTTP) == [False, True, True]
    assert rose(Layer.NODE_TOKEN) == [True, True, True]
    hints = {"secret": "--region-secret-file", "token": "same --region-secret-file", "http": "correct its --region",
             "node_token": "speil configuration"}  # fmt: skip
    for layer, hint in hints.items():
        assert second.said("kept out", layer=layer, who=lab.lans.stranger.address, what_to_do=hint)
    assert first.said("kept out", layer="network", who=lab.lans.stranger.address, what_to_do="--region-networks")
    assert await settled_records(lab) == records
    for node in lab.regions["regionb"]:
        assert not any(node.rejected(layer) > before[node, layer] for layer in Layer)
    for node in lab.nodes:
        text = node.speil.log_text()
        assert not any(path.read_text().strip() in text for path in lab.secrets.values()), "a secret is never logged"
        assert not any(token["token"] in text for token in tokens)
    verdict, _ = await asyncio.gather(verify(lab), assert_isolated(lab, lab.lans.capture.mark()))
    assert verdict.exit_code == 0, "nothing crossed"
    assert verdict.says("warn", "regiona rejected attempts from outside"), verdict


def overheard(tap: socket.socket) -> list[dict[str, str]]:
    """The tokens in all requests that were seen on a node's cable."""
    tokens = []
    with suppress(BlockingIOError):
        while frame := tap.recv(1 << 16):
            if frame[12:14] != IPV4:
                continue
            packet = parse_packet(frame[14:])
            head, end, _ = packet.payload.decode("latin-1").partition("\r\n\r\n")
            request, *headers = head.split("\r\n")
            named = dict(line.partition(": ")[::2] for line in headers)
            if packet.target_port == REGISTRY_PORT and end and TOKEN_HEADER in named:
                method, target, _ = request.split(" ")
                token = named[TOKEN_HEADER]
                tokens.append({"method": method, "address": packet.target, "target": target, "token": token})
    return tokens


def attack(lab: RegionLab, images: list[Pushed], tokens: list[dict[str, str]]) -> dict[str, Any]:
    """Let the hostile node loose on regiona, from a host in regionb's network; its report."""
    plan = {
        "region": "regiona",
        "other_region": "regionb",
        "nodes": [{"address": node.address, "peer_id": node.peer_id} for node in lab.regions["regiona"]],
        "keys": [str(digest) for one in images for digest in one.image.blobs],
        "targets": [target for one in images for target in one.targets],
        "tokens": tokens,
    }
    argv = ["ip", "netns", "exec", lab.lans.stranger.name, sys.executable, "-m", "tests.system.lab.hostile"]
    done = subprocess.run(argv, cwd=ROOT, input=json.dumps(plan).encode(), capture_output=True, timeout=60, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report
