"""Reads a node from `/debug/state` alone: at a thousand nodes, parsing the text of their metrics takes too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from speil.local_file import parse_json
from speil.overview.view import FromPeer, InFlight, KeptOut, NodeView, Traffic

ITEMS_MAX = 500  # of each list; a node sends fewer
TEXT_CHARS_MAX = 400  # of a text that is shown
COUNT_MAX = 1 << 63  # of bytes; NaN and infinity are no counts either
_TRAFFIC = tuple(Traffic.__dataclass_fields__)


def read_state(name: str, text: str) -> NodeView | None:
    """The node; None where its version does not report its traffic there.

    Raises ValueError, KeyError or TypeError where it is not the state of a speil node.
    """
    document = parse_json(text)
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    return _view(name, document) if "traffic" in document else None


def _view(name: str, document: Mapping[str, Any]) -> NodeView:
    return NodeView(
        name=name,
        region=_text(document["region"]),
        zone=_text(document["zone"]),
        lease=_text(document["lease"]),
        label=_text(document.get("topology_region") or ""),
        region_source=_text(document.get("region_from", "")),
        is_guarded=bool(document.get("has_secret") or document.get("has_networks")),
        lease_is_foreign=bool(document.get("lease_is_foreign")),
        peer_id=_text(document["peer_id"]),
        ready=bool(document["ready"]),
        leads=bool(document.get("leads")),
        peers=tuple(_text(peer["peer"]) for peer in _items(document, "peers")),
        started_at=_seconds(document["started_at"]),
        traffic={_text(registry): _traffic(counts) for registry, counts in _table(document, "traffic").items()},
        rejected={_text(layer): _count(count) for layer, count in _table(document, "rejected").items() if count},
        from_peers={
            _text(one["peer"]): FromPeer(_count(one["bytes"]), _count(one["minute"]))
            for one in _items(document, "from_peers")
        },
        in_flight=tuple(_in_flight(document)),
        kept_out=tuple(
            KeptOut(
                _text(one["layer"]), _text(one["who"]), _text(one["why"]), _text(one["what_to_do"]),
                _count(one["count"]), _seconds(one["time"]),
            )
            for one in _items(document, "kept_out")
        ),
        hosts=_hosts(document),
    )  # fmt: skip


def _traffic(counts: Any) -> Traffic:
    if not isinstance(counts, dict):
        raise TypeError("the counters of a registry are not an object")
    return Traffic(**{field: _count(counts.get(field, 0)) for field in _TRAFFIC})


def _in_flight(document: Mapping[str, Any]) -> Iterator[InFlight]:
    """`transfers` of downloads that are shared while they grow, then the requests that are being answered."""
    shared = set()
    for one in _items(document, "transfers"):
        found = _flight(one)
        shared.add((found.key, found.role == "serving"))
        yield found
    for one in _items(document, "requests_in_flight"):
        found = _flight(one)
        if (found.key, found.role == "serving") not in shared:
            yield found


def _flight(one: Mapping[str, Any]) -> InFlight:
    key, role, peer, image = (_text(one.get(name) or "") for name in ("key", "role", "peer", "image"))
    return InFlight(key, role, peer, _count(one.get("offset") or 0), _count(one.get("total") or 0), image)


def _hosts(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses in `/ip4/10.0.0.7/tcp/5001, …`."""
    parts = (address.strip().split("/") for address in _text(document.get("addresses", "")).split(","))
    return tuple(part[2] for part in parts if len(part) > 2)


def _items(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise TypeError(f"{name} is not a list of objects")
    return found[:ITEMS_MAX]


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name) or {}
    if not isinstance(found, dict):
        raise TypeError(f"{name} is not an object")
    return dict(list(found.items())[:ITEMS_MAX])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not a text")
    return value[:TEXT_CHARS_MAX]


def _count(value: Any) -> int:
    if not isinstance(value, int | float) or not 0 <= value < COUNT_MAX:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return int(value)


def _seconds(value: Any) -> float:
    _count(value)
    return float(value)
