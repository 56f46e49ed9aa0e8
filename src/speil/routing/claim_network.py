"""The port between a node's pulls in flight and the umpires of its region.

Adapters: `dht_claims` and `memory_claims`, which pass `testing.claim_network_conformance`. A key is a content key
(`multiformats.content_key`). A node takes part from `attach` on: other nodes see it as one that understands claims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from speil.claims.message import Answer, Ask, Release, Status
from speil.multiformats.peer_info import PeerInfo

StatusOf = Callable[[bytes], Status]


class ClaimNetwork(Protocol):
    """One node's way to the umpires. The node has an umpire of its own behind it."""

    @property
    def local(self) -> PeerInfo:
        """This node, with its zone."""

    def attach(self, status: StatusOf) -> None:
        """Take part in sharing; call this once, before the node joins the mesh.

        status: this node's answer to a follower's AskStatus for a content key. It must not block or raise.
        """

    def closest(self, key: bytes) -> list[PeerInfo]:
        """Up to 20 nodes closest to `key` that understand claims, closest first, with this node in its place.

        Empty before `attach`.
        """

    def nobody_has(self, key: bytes) -> bool:
        """Whether no other node is known to have the content, in a mesh so small that each node has all records.

        False in a larger mesh: there only a search shows who has it, and who is closest to the key.
        """

    async def ask(self, umpire: PeerInfo, key: bytes, ask: Ask) -> Answer:
        """The answer of `umpire`, which may be this node: its own umpire answers without a message.

        Peers that the answer names passed the checks of this node: it may dial them, and none is this node itself
        (`Defer` may name it). Has a time limit of its own, of seconds. Raises NetworkError where the peer can't be
        reached or its answer has no valid claim, NotAskedError where a limit of this node prevented the request.
        """

    async def ask_status(self, source: PeerInfo, key: bytes) -> Status:
        """The answer of `source` to AskStatus. Time limit and errors are those of `ask`."""

    async def release(self, umpire: PeerInfo, key: bytes, release: Release) -> None:
        """Send `release` to `umpire`, which may be this node. The failure of a peer is logged, not raised."""


def short(key: bytes) -> str:
    """A content key in log lines and in `/debug/state`: the same on all nodes."""
    return key[2:10].hex()
