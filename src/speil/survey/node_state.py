"""Reads a node from `/debug/state` alone: at a thousand nodes, parsing the text of their metrics takes too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from speil.local_file import parse_json
from speil.overview.view import FromPeer, InFlight, KeptOut, NodeView, Traffic

ITEMS_MAX = 500  # of each list; a node sends fewer
TEXT_CHARS_MAX = 400  # of a text that is shown
_TRAFFIC = tuple(Traffic.__dataclass_fields__)


def read_state(name: str, text: str) -> NodeView | None:
    """The node; None where its version does not report its traffic there.

    Raises ValueError, KeyError or TypeError where it is not the state of a speil node.
    """
    document = parse_json(text)
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    if "traffic" not in document:
        return None
    return NodeView(
        name=name,
        region=_text(document["region"]),
        zone=_text(document["zone"]),
        lease=_text(document["lease"]),
        label=document.get("topology_region"),
        region_source=_text(document.get("region_from", "")),
        is_guarded=bool(document.get("has_secret") or document.get("has_networks")),
        lease_is_foreign=bool(document.get("lease_is_foreign")),
        peer_id=_text(document["peer_id"]),
        ready=bool(document["ready"]),
        leads=bool(document.get("leads")),
        peers=tuple(_text(peer["peer"]) for peer in document["peers"]),
        started_at=float(document["started_at"]),
        traffic={_text(registry): _traffic(counts) for registry, counts in document["traffic"].items()},
        rejected={_text(layer): int(count) for layer, count in document["rejected"].items() if count},
        from_peers={
            _text(one["peer"]): FromPeer(int(one["bytes"]), int(one["minute"]))
            for one in _items(document, "from_peers")
        },
        in_flight=tuple(_in_flight(document)),
        kept_out=tuple(
            KeptOut(
                _text(one["layer"]), _text(one["who"]), _text(one["why"]), _text(one["what_to_do"]),
                int(one["count"]), float(one["time"]),
            )
            for one in _items(document, "kept_out")
        ),
        hosts=_hosts(document),
    )  # fmt: skip


def _traffic(counts: Mapping[str, Any]) -> Traffic:
    return Traffic(**{field: int(counts.get(field, 0)) for field in _TRAFFIC})


def _in_flight(document: Mapping[str, Any]) -> Iterator[InFlight]:
    """`transfers` of downloads that are shared while they grow, then the requests that are being answered."""
    shared = set()
    for one in _items(document, "transfers"):
        found = InFlight(
            _text(one["key"]), _text(one["role"]), _text(one.get("peer") or ""), int(one.get("offset") or 0),
            int(one.get("total") or 0), _text(one.get("image") or ""),
        )  # fmt: skip
        shared.add((found.key, found.role == "serving"))
        yield found
    for one in _items(document, "requests_in_flight"):
        key, role = _text(one["key"]), _text(one["role"])
        if (key, role == "serving") not in shared:
            yield InFlight(key, role, _text(one["peer"]), int(one["offset"]), int(one["total"]), _text(one["image"]))


def _hosts(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses in `/ip4/10.0.0.7/tcp/5001, …`."""
    parts = (address.strip().split("/") for address in _text(document.get("addresses", "")).split(","))
    return tuple(part[2] for part in parts if len(part) > 2)


def _items(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name) or []
    if not isinstance(found, list):
        raise TypeError(f"{name} is not a list")
    return found[:ITEMS_MAX]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not a text")
    return value[:TEXT_CHARS_MAX]
