"""A connected socket for a host and port, tried address by address.

asyncio's own `create_connection` loses a socket where it is cancelled in the moment in which it has connected.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

ATTEMPT_SECONDS_MAX = 3.0  # for an address that is not the last one of its name
ADDRESSES_MAX = 8  # of a name that are tried

_Address = tuple[int, Any]  # family, and what `connect` takes


async def connected_socket(host: str, port: int) -> socket.socket:
    """The caller owns it. Raises OSError, that of the last address."""
    *others, last = await _addresses(host, port)
    for address in others:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                return await _connect(address)
        except OSError:  # TimeoutError is one
            continue
    return await _connect(last)


async def _addresses(host: str, port: int) -> list[_Address]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses: list[_Address] = [(family, address) for family, _, _, _, address in found]
        if not addresses:
            raise OSError(f"{host} has no address") from None
        return addresses[:ADDRESSES_MAX]
    return [(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]


async def _connect(address: _Address) -> socket.socket:
    family, where = address
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY on no other
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, where)
    except BaseException:
        opened.close()
        raise
    return opened
