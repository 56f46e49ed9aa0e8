"""Traces of many nodes as tables for people, and as JSON for programs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speil.survey.table import align, size
from speil.survey.trace import NodeTrace

HERE, PEER, UPSTREAM = "here", "peer", "upstream"  # of speil.trace.verdict; a layer's own URLs count as upstream
PEERS_NAMED_MAX = 3


def node_table(traces: Sequence[NodeTrace]) -> str:
    """One line for each node: what it has, what it would get from peers, what from the upstream."""
    head = ("node", "region", "zone", "tag", "has", "from peers", "from upstream", "peers")
    return align([head, *map(_node_row, traces)])


def _node_row(one: NodeTrace) -> tuple[str, ...]:
    place = one.node, one.region or "(none)", one.zone or "-"
    if one.error:
        return (*place, *["?"] * 5)
    tag = (one.document or {}).get("tag") or {}
    peers = Counter(_peer(part)[0] for part in one.parts if _source(part) == PEER)
    named = ", ".join(host for host, _ in peers.most_common(PEERS_NAMED_MAX))
    more = f" and {len(peers) - PEERS_NAMED_MAX} more" if len(peers) > PEERS_NAMED_MAX else ""
    return (
        *place,
        str(tag.get("source", "-")),
        *(_parts([part for part in one.parts if _source(part) == source]) for source in (HERE, PEER, UPSTREAM)),
        f"{named}{more}" or "-",
    )


def _parts(parts: Sequence[Mapping[str, Any]]) -> str:
    return f"{len(parts)} ({size(sum(int(part['size']) for part in parts))})" if parts else "-"


@dataclass(slots=True)
class _Nodes:
    """How many nodes of a region get one part from where."""

    part: Mapping[str, Any]
    sources: Counter[str] = field(default_factory=Counter)


def layer_table(traces: Sequence[NodeTrace]) -> str:
    """One line for each region and part: how many nodes have it, get it from peers, get it from the upstream."""
    found: defaultdict[str, dict[str, _Nodes]] = defaultdict(dict)
    for one in traces:
        for part in one.parts:
            nodes = found[one.region].setdefault(str(part["digest"]), _Nodes(part))
            nodes.sources[_source(part)] += 1
    rows = [
        (
            region or "(none)", str(nodes.part["kind"]), _short(digest), size(int(nodes.part["size"])),
            *(_nodes(nodes.sources[source]) for source in (HERE, PEER, UPSTREAM)),
        )
        for region, parts in found.items()
        for digest, nodes in parts.items()
    ]  # fmt: skip
    return align([("region", "part", "digest", "size", "have it", "get it from peers", "get it from upstream"), *rows])


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}" if count else "-"


def part_table(traces: Sequence[NodeTrace]) -> str:
    """One line for each node and part: from where it comes, who holds it, how soon a holder was found, how fast."""
    head = ("node", "region", "part", "digest", "size", "from", "peer", "zone", "holders", "found in", "speed")
    return align([head, *(_part_row(one, part) for one in traces for part in one.parts)])


def _part_row(one: NodeTrace, part: Mapping[str, Any]) -> tuple[str, ...]:
    host, zone = _peer(part)
    seconds = part.get("find_seconds")
    speed = (part.get("measured") or {}).get("bytes_per_second")
    return (
        one.node, one.region or "(none)", str(part["kind"]), str(part["digest"]), size(int(part["size"])),
        str(part["source"]), host or "-", zone or "-", str(part.get("holders_count", 0)),
        "-" if seconds is None else f"{seconds * 1000:.0f} ms", f"{size(int(speed))}/s" if speed else "-",
    )  # fmt: skip


def _source(part: Mapping[str, Any]) -> str:
    return str(part["source"]) if part["source"] in (HERE, PEER) else UPSTREAM


def _peer(part: Mapping[str, Any]) -> tuple[str, str]:
    """Address (without one, the peer id) and zone of the peer that would serve it; "" where there is none."""
    peer = part.get("peer") or {}
    return str(peer.get("host") or peer.get("peer") or ""), str(peer.get("zone") or "")


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"


def document(traces: Sequence[NodeTrace], image: str) -> dict[str, Any]:
    """For `--output json`: the nodes' own documents, each with the node, its region and zone."""
    return {
        "image": image,
        "nodes": [
            {"node": one.node, "region": one.region, "zone": one.zone, "error": one.error, "trace": one.document}
            for one in traces
        ],
    }
