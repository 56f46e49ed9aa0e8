"""The port: a source of first peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo


class BootstrapError(Exception):
    """The source could not be asked; the message says which and why. It is asked again.

    `told`: the source has put it into the log itself; one line is enough. `addresses` can be dialled all the same.
    """

    def __init__(self, message: str, *, told: bool = False, addresses: tuple[Multiaddr, ...] = ()) -> None:
        super().__init__(message)
        self.told, self.addresses = told, addresses


class Bootstrapper(Protocol):
    """A kind of bootstrap."""

    kind: str

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """Addresses to dial, best first, with or without `/p2p`; empty where nobody else is there.

        Raises BootstrapError.
        """

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """What this node does so that others find it; runs until cancelled, or returns at once."""
