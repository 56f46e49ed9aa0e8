"""Opens TCP connections: the addresses of a host, and a connected non-blocking socket."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """An address family, and what `socket.connect` takes for it."""

    family: int
    where: Any


async def addresses_of(host: str, port: int) -> list[Address]:
    """The addresses of a name, at least one; an IP address is its own.

    Raises OSError, also for what can't be a name.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # an empty label, or one of more than 63 bytes
            raise OSError(errno.EINVAL, f"not a host name: {error}") from None
        if not found:
            raise OSError(f"{host} has no address") from None
        return [Address(family, where) for family, _, _, _, where in found]
    return [Address(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]


async def connect(address: Address) -> socket.socket:
    """A connected socket; the caller owns it and bounds the time. Raises OSError."""
    # asyncio sets TCP_NODELAY only on a socket that names its protocol
    opened = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, address.where)
    except BaseException:
        opened.close()
        raise
    return opened
