"""Nodes that belong to no region, and one that is hostile."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from speil.border.http import MIRRORED_HEADER, TOKEN_HEADER
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from tests.interop.peers import PeerProgramError, peer_program
from tests.requirements import ROOT, tool_path
from tests.system.isolation.checks import (
    REGISTRY_PORT,
    Pushed,
    assert_isolated,
    assert_only_refusals,
    found,
    pull_twice,
    registry_packets,
)
from tests.system.lab.capture import parse_packet
from tests.system.lab.lans import REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("namespaces", "registry", "containerd-1", "containerd-2", "kubernetes"),
]



IPV4 = b"\x08\x00"  # a frame's type


def ask(address: str, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """A request from wherever this thread is: status and body."""
    connection = http.client.HTTPConnection(address, REGISTRY_PORT, timeout=10)
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.interop
@pytest.mark.requires("interop-peer")
async def test_nodes_without_a_region(lab: RegionLab) -> None:
    """A node as Spegel has it (go-libp2p), and a speil that was told no region; both know addresses of both regions."""
    mark = lab.lans.capture.mark()
    targets, lost = [lab.regions[region][0] for region in REGIONS], lab.regions["regionb"][2]
    held = Pushed(lab, "both")
    for target in targets:
        await target.pull(f"{held.name}:1")
    seeds = ",".join(target.multiaddr for target in targets)
    flags = ["--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
    await lab.configure({lost: flags}, fresh=[lost], alone=[lost])
    for target in targets:
        await eventually(lambda target=target: target.said("kept out", layer="identify", who=lost.peer_id))
        assert lost.said("kept out", layer="identify", who=target.peer_id, why=target.region)
    assert not lost.peers

    stranger = lab.lans.stranger
    program = str(tool_path("interop-peer"))
    async with peer_program("ip", "netns", "exec", stranger.name, program, f"/ip4/{stranger.address}/tcp/5001") as spegel:
        key = f"sha256:{'ab' * 32}"
        for target in targets:
            # the dial itself may or may not be through before it is thrown out
            with suppress(PeerProgramError):
                await spegel.ask("connect", addr=f"{target.multiaddr}/p2p/{target.peer_id}")
            await eventually(lambda target=target: target.said("kept out", who=spegel.id, why="no region"))
        with suppress(PeerProgramError):
            await spegel.ask("provide", key=key)
        assert (await spegel.ask("find_providers", key=str(held.image.index.digest)))["providers"] == []
        for node in lab.nodes:
            assert spegel.id not in node.peers
            assert await found(lab, node, [f"/v2/x/blobs/{key}?ns={REGISTRY}"]) == 0
        before = {target: target.rejected(Layer.HTTP) for target in targets}
        for target in targets:
            with inside(stranger):
                for path in held.targets:
                    assert ask(target.address, path, {MIRRORED_HEADER: "true"}) == (404, b"")
            assert target.rejected(Layer.HTTP) == before[target] + len(held.targets)
            assert target.said("kept out", layer="http", who=stranger.address, what_to_do="correct its --region")
    packets = registry_packets(lab, mark)
    await assert_isolated(lab, lab.lans.capture.mark())
    assert packets, "its requests to the other region were seen"
    assert_only_refusals(packets)


async def test_a_hostile_node_that_lacks_nothing_but_the_secret(lab: RegionLab) -> None:
    first, second, third = lab.regions["regiona"]
    with_secret = lab.with_secrets()
    with_secret[first].append("--region-networks=10.81.1.0/24")
    await lab.configure(with_secret)
    mark = lab.lans.capture.mark()
    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)

    # what somebody in regiona's network can overhear: the requests of true pulls
    target = Pushed(lab, "regiona")
    with lab.lans.tap(second.namespace) as tap:
        await pull_twice(lab, target, second, third, meshed=True)
        tokens = overheard(tap)
    assert {token["target"] for token in tokens} >= set(target.targets)
    records = {node: node.metric("speil_provider_records") for node in lab.nodes}
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
    for node in lab.nodes:
        assert node.metric("speil_provider_records") == records[node]
    for node in lab.regions["regionb"]:
        assert not any(node.rejected(layer) > before[node, layer] for layer in Layer)
    for node in lab.nodes:
        text = node.speil.log_text()
        assert not any(path.read_text().strip() in text for path in lab.secrets.values()), "a secret is never logged"
        assert not any(token["token"] in text for token in tokens)
    await assert_isolated(lab, lab.lans.capture.mark())


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
