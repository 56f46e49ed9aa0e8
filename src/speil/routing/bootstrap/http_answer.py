"""The `/id` page: a peer's id and addresses, in the three forms that Spegel has had.

    /ip4/10.0.0.7/tcp/5001/p2p/12D3…                      a multiaddr as text: up to 0.1
    {"ID": "12D3…", "Addrs": ["/ip4/10.0.0.7/tcp/5001"]}  go-libp2p's AddrInfo: 0.2 to 0.7
    [{"ID": …, "Addrs": […]}, …]                          a list of them, on its main branch: the id may be missing;
                                                          an address without a port means the router port

Addresses that are not TCP (Spegel lists QUIC too) are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from speil.local_file import parse_json
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

PEERS_MAX = 8  # Spegel takes three
ADDRESSES_PER_PEER_MAX = 8  # a node has two, or four


class AnswerError(Exception):
    """The page is not valid. The message is a clause about the page: 'names no peer …'."""


def parse(text: str, own: PeerId, router_port: int) -> list[Multiaddr]:
    """Addresses to dial, without those of `own`. Raises AnswerError where the page names no peer to dial."""
    peers = list(_peers(text.strip(), router_port))[:PEERS_MAX]
    others = [addresses for peer_id, addresses in peers if peer_id != own]
    found = [address for addresses in others for address in addresses[:ADDRESSES_PER_PEER_MAX]]
    if (others or not peers) and not found:
        raise AnswerError("names no peer with a TCP address")
    return found


def _peers(text: str, router_port: int) -> Iterator[tuple[PeerId | None, list[Multiaddr]]]:
    if text.startswith("/"):
        try:
            address = Multiaddr.parse(text)
        except FormatError as error:
            raise AnswerError(f"is no peer: {error}") from error
        yield address.peer_id, _dialable([address], router_port)
        return
    try:
        document = parse_json(text)
    except ValueError:
        raise AnswerError(f"is no peer: {text[:60]!r}") from None
    for item in document if isinstance(document, list) else [document]:
        if not isinstance(item, dict) or not ("ID" in item or "Addrs" in item):
            raise AnswerError(f"is no peer: {text[:60]!r}")
        yield _peer(item, router_port)


def _peer(item: dict[str, Any], router_port: int) -> tuple[PeerId | None, list[Multiaddr]]:
    named, listed = item.get("ID") or "", item.get("Addrs") or []
    try:
        peer_id = PeerId.parse(named) if named else None
    except (FormatError, TypeError, AttributeError) as error:
        raise AnswerError(f"names a peer with a wrong id: {error}") from error
    addresses = []
    for text in listed if isinstance(listed, list) else []:
        try:
            addresses.append(Multiaddr.parse(text if isinstance(text, str) else ""))
        except FormatError:
            continue
    found = _dialable(addresses, router_port)
    return peer_id, [address.with_peer_id(peer_id) for address in found] if peer_id else found


def _dialable(addresses: Iterable[Multiaddr], router_port: int) -> list[Multiaddr]:
    found = []
    for address in addresses:
        match address.without_peer_id.components:
            case ((("ip4" | "ip6" | "dns" | "dns4" | "dns6"), host),):
                found.append(Multiaddr.of_tcp(host, router_port, address.peer_id))
            case _ if address.tcp:
                found.append(address)
    return found


def as_document(peer: PeerInfo) -> str:
    """The page for Spegel 0.2 to 0.7."""
    return json.dumps(_info(peer))


def as_list(peer: PeerInfo) -> str:
    """The page for Spegel's main branch."""
    return json.dumps([_info(peer)])


def as_text(peer: PeerInfo) -> str:
    """The page for Spegel up to 0.1."""
    addresses: Sequence[Multiaddr] = peer.addresses
    return str(addresses[0].with_peer_id(peer.peer_id)) if addresses else ""


def _info(peer: PeerInfo) -> dict[str, Any]:
    return {"ID": str(peer.peer_id), "Addrs": [str(address) for address in peer.addresses]}
