"""A connected socket for a host and port, tried address by address.

asyncio's own `create_connection` loses a socket where it is cancelled in the moment in which it has connected.
"""

from __future__ import annotations

import asyncio
import socket

from speil.tcp import addresses_of, connect

ATTEMPT_SECONDS_MAX = 3.0  # for an address that is not the last one of its name
ADDRESSES_MAX = 8  # of a name that are tried


async def connected_socket(host: str, port: int) -> socket.socket:
    """The caller owns it. Raises OSError, that of the last address."""
    *others, last = (await addresses_of(host, port))[:ADDRESSES_MAX]
    for address in others:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                return await connect(address)
        except OSError:  # TimeoutError is one
            continue
    return await connect(last)
