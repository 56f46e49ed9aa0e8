"""`speil region trace`: the tables of many nodes, and the command on running nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from speil.http1.message import Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.progress import Progress
from speil.setting import ListenAddress
from speil.survey import trace as traces
from speil.survey.trace import NodeTrace, trace_at
from speil.survey.trace_table import document, layer_table, node_table, part_table
from tests.shell.nodes import free_ports, running_node
from tests.shell.test_cli import speil
from tests.shell.test_region_commands import IMAGE, LAYER, two_regions

CONFIG, BASE, TOP = (f"sha256:{number:064x}" for number in range(1, 4))


def part(digest: str, size: int, source: str, host: str = "", *, kind: str = "layer") -> dict[str, Any]:
    peer = {"peer": "12D3", "host": host, "zone": "z1"} if host else None
    return {
        "kind": kind, "digest": digest, "size": size, "source": source, "peer": peer, "holders_count": 2 if host else 0,
        "find_seconds": 0.0123 if host else None, "measured": {"bytes_per_second": 5 << 20} if host else None,
    }  # fmt: skip


def node(name: str, region: str, *parts: dict[str, Any], tag: str = "peer") -> NodeTrace:
    return NodeTrace(name, region, "z1", {"tag": {"source": tag}, "parts": list(parts), "does": "A pull."})


FOUND = [
    node("a1", "a", part(CONFIG, 100, "here", kind="config"), part(BASE, 2 << 20, "here"), tag="store"),
    node("a2", "a", part(CONFIG, 100, "peer", "10.0.0.1", kind="config"), part(BASE, 2 << 20, "peer", "10.0.0.1")),
    node("b1", "b", part(BASE, 2 << 20, "upstream"), part(TOP, 1 << 10, "own url")),
    NodeTrace("b2", "b", error="it is away"),
    NodeTrace("c1", error="not reached"),
]


def rows(table: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in table.splitlines()]


def test_one_line_for_each_node() -> None:
    assert rows(node_table(FOUND))[1:] == [
        ["a1", "a", "z1", "store", "2 (2.0 MiB)", "-", "-", "-"],
        ["a2", "a", "z1", "peer", "-", "2 (2.0 MiB)", "-", "10.0.0.1"],
        ["b1", "b", "z1", "peer", "-", "-", "2 (2.0 MiB)", "-"],
        ["b2", "b", "-", *["?"] * 5],
        ["c1", "(none)", "-", *["?"] * 5],
    ]


def test_peers_of_a_node_are_named_up_to_a_bound() -> None:
    parts = [part(f"sha256:{number:064x}", 1, "peer", f"10.0.0.{number}") for number in range(5)]
    assert rows(node_table([node("a1", "a", *parts)]))[1][-1] == "10.0.0.0, 10.0.0.1, 10.0.0.2 and 2 more"


def test_one_line_for_each_region_and_part() -> None:
    assert rows(layer_table(FOUND))[1:] == [
        ["a", "config", "sha256:000000000000", "100 B", "1 node", "1 node", "-"],
        ["a", "layer", "sha256:000000000000", "2.0 MiB", "1 node", "1 node", "-"],
        ["b", "layer", "sha256:000000000000", "2.0 MiB", "-", "-", "1 node"],
        ["b", "layer", "sha256:000000000000", "1.0 KiB", "-", "-", "1 node"],
    ]
    many = [node(f"n{number}", "a", part(BASE, 1, "here")) for number in range(1000)]
    assert rows(layer_table(many))[1][-3:] == ["1000 nodes", "-", "-"]


def test_one_line_for_each_node_and_part() -> None:
    found = rows(part_table(FOUND))
    assert len(found) == 1 + 6
    assert found[3] == ["a2", "a", "config", CONFIG, "100 B", "peer", "10.0.0.1", "z1", "2", "12 ms", "5.0 MiB/s"]
    assert found[5][5:] == ["upstream", "-", "-", "0", "-", "-"]


def test_json_has_the_nodes_own_documents() -> None:
    made = document(FOUND, "reg.test/a:1")
    assert made["image"] == "reg.test/a:1"
    assert [one["error"] for one in made["nodes"]] == ["", "", "", "it is away", "not reached"]
    assert made["nodes"][0]["trace"] is FOUND[0].document
    json.dumps(made)


@pytest.mark.long
async def test_the_command_on_two_regions(tmp_path: Path) -> None:
    async with two_regions(tmp_path) as regions:
        urls, image = regions.flags[0], "reg.test/app:1"
        holder, other = regions.nodes["b"]
        by_region = [sorted(f"{node.host}:{node.metrics_port}" for node in nodes) for nodes in regions.nodes.values()]
        its_name = f"{other.host}:{other.metrics_port}"
        code, out, err = await speil("region", "trace", image, urls)
        assert code == 0
        assert err == f"tracing {image} on the nodes\n"
        head, *lines = rows(out.partition("\n\n")[0])
        assert [line[0] for line in lines] == [name for names in by_region for name in names]
        told = next(dict(zip(head, line, strict=True)) for line in lines if line[0] == its_name)
        assert (told["from upstream"], told["peers"]) == ("-", holder.host)

        code, out, err = await speil("region", "trace", image, urls, "--region", "b", "-q", "-ojson", "--measure")
        assert (code, err) == (0, "")
        told_of = {one["node"]: one for one in json.loads(out)["nodes"]}
        assert (list(told_of), {one["region"] for one in told_of.values()}) == (by_region[-1], {"b"})
        second = told_of[its_name]
        (layer,) = (one for one in second["trace"]["parts"] if one["digest"] == str(LAYER))
        assert (layer["source"], layer["size"]) == ("peer", len(IMAGE.blobs[LAYER]))
        assert layer["peer"]["host"] == holder.host
        assert layer["measured"]["bytes"] > 0
        assert layer["measured"]["is_whole"]

        code, out, err = await speil("region", "trace", "reg.test/no:1", urls, "-q")
        assert (code, out) == (1, "")
        assert "no node knows the parts of reg.test/no:1, of 4 that were asked." in err
        code, out, err = await speil("region", "trace", image, urls, "-q", "--region=c")
        assert (code, out, err) == (1, "", "speil region trace: there is no region 'c': there are a, b\n")
        # a node that is away leaves the others
        holder.process.kill()
        await holder.process.wait()
        code, out, err = await speil("region", "trace", image, urls, "-q")
        assert code == 0
        assert f"{holder.host}:{holder.metrics_port}: http" in err


async def test_a_node_without_the_pages_is_named(tmp_path: Path) -> None:
    async with running_node(tmp_path, tmp_path / "layout", "--debug-web-enabled=false") as running:
        url = f"http://{running.host}:{running.metrics_port}"
        code, out, err = await speil("region", "trace", "a/b", f"--metrics-urls={url}", "-q")
    assert (code, out) == (1, "")
    assert f"{running.host}:{running.metrics_port}: its speil has no traces: it is older, or runs with" in err
    assert err.splitlines()[-1] == "speil region trace: no node could be traced"


async def test_a_server_that_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "REQUEST_SECONDS_MAX", 5.0)
    with Progress(quiet=True) as progress:
        (found,) = await trace_at(["http://127.0.0.1:1"], "a/b", (), {}, progress)
    assert "can't be reached" in found.error


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<!DOCTYPE HTML>\n<html>\n", "answered 404"),
        ("no\x1b[2J such \x07page\nsecond line\n", "answered 404: no?[2J such ?page"),
        ("", "answered 404"),
    ],
)
async def test_what_another_server_says_is_one_line_without_commands_for_a_terminal(body: str, shown: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(404, [("Content-Type", "text/plain")], body.encode())

    (port,) = free_ports("127.0.0.1", 1)
    with Progress(quiet=True) as progress:
        async with GuardedServer("other", answer, Bounds(8, 8, 8)).serve(ListenAddress("127.0.0.1", port)):
            (found,) = await trace_at([f"http://127.0.0.1:{port}"], "a/b", (), {}, progress)
    assert found.error.endswith(shown)


def test_a_table_has_no_commands_for_a_terminal() -> None:
    assert "\x1b" not in node_table([node("a\x1b[2J", "r\n2")])
    assert node_table([node("a\x1b[2J", "r\n2")]).splitlines()[1].startswith("a?[2J")
