"""The port to a source of first peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo


class BootstrapError(Exception):
    """The source did not answer; the message says which one and why. The driver retries.

    logged: the source has logged the failure itself, so the driver does not.
    addresses: known without the source; they can be dialled nevertheless.
    """

    def __init__(self, message: str, *, logged: bool = False, addresses: tuple[Multiaddr, ...] = ()) -> None:
        super().__init__(message)
        self.logged, self.addresses = logged, addresses


class Bootstrapper(Protocol):
    """A source of first peers. Adapters: `dns`, `http`, `static`, and `lease` for kubernetes and file."""

    kind: str  # a metric label

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """Addresses to dial, best first, with or without `/p2p`; empty where no other node exists.

        Has a time limit of its own. Raises BootstrapError.
        """

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """Let other nodes find this one, until cancelled; returns at once where there is nothing to do.

        `local` gives this node. Raises BootstrapError for what the operator has to fix.
        """
