"""The port to an access: the API server's address, the CA to trust, and this client's credentials.

The access is read anew for each request, because all of it may change while a node runs: tokens are rotated on disk, a
CA is replaced, a kubeconfig is edited.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from speil.kube.error import KubeAccessError

_FILE_BYTES_MAX = 1 << 20  # kubeconfigs of people with many clusters have tens of kilobytes


@dataclass(frozen=True, slots=True)
class Access:
    """What one request needs. Requests with the same server and the same TLS context object share connections."""

    server: str  # base URL, without a slash at its end
    tls: ssl.SSLContext
    authorization: str = ""  # the header's value; "" with a client certificate
    tls_server_name: str = ""  # what the server's certificate is checked for; "" is the URL's host


class AccessSource(Protocol):
    """Adapters: `in_cluster`, `kubeconfig`."""

    async def current(self) -> Access:
        """The access that is valid now. Raises KubeAccessError."""

    def refused(self) -> None:
        """The server refused the credentials: forget those that are cached."""


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file of at most 1 MiB. Raises KubeAccessError, which names the file as `what`."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KubeAccessError(f"{what} {path} can't be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise KubeAccessError(f"{what} {path} has more than {_FILE_BYTES_MAX} bytes: is it the right file?")
    return data


def tls_context(ca: bytes | None, certificate: bytes | None = None, key: bytes | None = None) -> ssl.SSLContext:
    """A context that trusts `ca` (None: the system's CAs), with a client certificate, all in PEM.

    Raises KubeAccessError.
    """
    try:
        context = ssl.create_default_context(cadata=ca.decode("ascii") if ca else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise KubeAccessError(f"the API server's CA certificate is not valid PEM: {error}") from error
    if certificate:
        _load_certificate(context, certificate + b"\n" + (key or b""))
    return context


def _load_certificate(context: ssl.SSLContext, pem: bytes) -> None:
    # the ssl module takes a path only: a memfd has one, and keeps the private key off the disk
    descriptor = os.memfd_create("client-certificate")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, ValueError) as error:
        raise KubeAccessError(
            f"the client certificate and its key don't match or are not valid PEM: {error}"
        ) from error
    finally:
        os.close(descriptor)
