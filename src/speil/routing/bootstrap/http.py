"""`http`: first peers from a page that a peer serves, and the page that this node serves.

The address is a base (`http://10.0.0.7:5002`), to which `/id` is added as in Spegel, or the page itself. Where one of
them names no peer the other is tried, and the one that worked is tried first the next time.

This node serves its id in each form that a version of Spegel reads: `/id` (0.2 to 0.7), `/ids` (a list, for the URL of
its main branch) and `/id.txt` (up to 0.1).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from speil.http1.places import Bounds
from speil.local_file import read_file
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.routing.bootstrap import http_answer
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.http_answer import AnswerError
from speil.setting import ListenAddress

if TYPE_CHECKING:
    # at run time only where they are used: `speil --help` reads the settings, and so this module
    from speil.http1.client import HttpClient
    from speil.http1.message import Request
    from speil.http1.reply import Reply

REQUEST_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024
CERTIFICATE_BYTES_MAX = 1 << 20  # a bundle of all public authorities takes a quarter of it
CONNECTIONS = Bounds(total=128, own=8, per_share=16)  # nodes of a region that start together, each for a moment
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "tls.crt", "tls.key"  # Spegel's names, and Kubernetes' TLS Secrets'

log = get_log("bootstrap")


class CertificateError(Exception):
    """The certificates can't be used. The message names the file and the fault."""


class HttpBootstrapper:
    """Requests the page at `address` (empty: none) and serves this node's id at `listen` (None: nowhere)."""

    kind = "http"

    def __init__(
        self, address: str, listen: ListenAddress | None, *, router_port: int = 5001, cert_dir: Path | None = None
    ) -> None:
        """`cert_dir` holds the authority and the client certificate for https. Raises CertificateError.

        router_port: for addresses without a port.
        """
        self._urls, self._listen, self._router_port, self._cert_dir = pages(address), listen, router_port, cert_dir
        if cert_dir is not None:
            tls_context(cert_dir)
            if not any((cert_dir / name).exists() for name in (CA_FILE, CERTIFICATE_FILE)):
                log.warning("bootstrap certificates not found, using the system's authorities", directory=cert_dir)

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper."""
        if not self._urls:
            return []
        from speil.http1.client import HttpClient, HttpError

        failures = []
        try:
            tls = None if self._cert_dir is None else tls_context(self._cert_dir)
        except CertificateError as error:
            raise BootstrapError(f"--http-bootstrap-cert-dir: {error}") from error
        client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, tls=tls)
        try:
            for url in self._urls:
                try:
                    found = http_answer.parse(await _get(client, url), local.peer_id, self._router_port)
                except AnswerError as error:
                    failures.append(f"{_shown(url)} {error}")
                except HttpError as error:
                    why = f"{_shown(url)} can't be requested: {error}"
                    raise BootstrapError("; ".join([*failures, why])) from error
                else:
                    self._urls = [url, *(other for other in self._urls if other != url)]
                    return found
        finally:
            await client.close()
        raise BootstrapError("; ".join(failures))

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """See Bootstrapper. Serves the page. Raises BootstrapError where `listen` can't be bound."""
        if self._listen is None:
            return
        from speil.http1.server import GuardedServer

        pages = {
            "/id": (http_answer.as_document, "application/json"),
            "/ids": (http_answer.as_list, "application/json"),
            "/id.txt": (http_answer.as_text, "text/plain"),
        }

        async def answer(request: Request, reply: Reply) -> None:
            if (page := pages.get(request.path)) is None:
                await reply.send(404)
            elif request.method not in ("GET", "HEAD"):
                await reply.send(405, [("Allow", "GET, HEAD")])
            else:
                show, kind = page
                await reply.send(200, [("Content-Type", f"{kind}; charset=utf-8")], show(local()).encode())

        try:
            async with GuardedServer("bootstrap", answer, CONNECTIONS).serve(self._listen):
                await asyncio.Event().wait()
        except OSError as error:
            raise BootstrapError(f"--http-bootstrap-addr: can't listen on {self._listen}: {error.strerror}") from error


def pages(address: str) -> list[str]:
    """The URLs that an address may mean, likeliest first; none for an empty one."""
    if not address:
        return []
    parts = urlsplit(address)
    below = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/id"))
    if not parts.path.strip("/"):
        return [below, address]
    return [address] if parts.path.rstrip("/").endswith("/id") else [address, below]


def tls_context(directory: Path) -> ssl.SSLContext:
    """For https: `ca.crt` (else the system's authorities) and, where they exist, `tls.crt` with `tls.key`.

    Raises CertificateError.
    """
    there = {name for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE) if _is_there(directory / name)}
    if (CERTIFICATE_FILE in there) != (KEY_FILE in there):
        missing = KEY_FILE if CERTIFICATE_FILE in there else CERTIFICATE_FILE
        raise CertificateError(
            f"{directory / missing} is missing: a client certificate needs {CERTIFICATE_FILE} and {KEY_FILE}"
        )
    try:
        context = ssl.create_default_context(cafile=str(directory / CA_FILE) if CA_FILE in there else None)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{directory / CA_FILE} holds no certificate that can be used: {error}") from error
    if CERTIFICATE_FILE in there:
        try:
            # With a password an encrypted key is an error; without one OpenSSL would prompt on the terminal.
            context.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(
                f"{directory / CERTIFICATE_FILE} and {KEY_FILE} can't be used together: {error}"
            ) from error
    return context


def _is_there(path: Path) -> bool:
    try:
        return bool(read_file(path, CERTIFICATE_BYTES_MAX).data)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from error


async def _get(client: HttpClient, url: str) -> str:
    from speil.http1.client import AnswerTooLargeError

    try:
        answer = await client.request("GET", url, answer_bytes_max=ANSWER_BYTES_MAX)
    except AnswerTooLargeError:
        raise AnswerError(f"answered with more than {ANSWER_BYTES_MAX} bytes") from None
    if answer.status != 200:
        raise AnswerError(f"answered {answer.status}")
    try:
        return answer.body.decode()
    except UnicodeDecodeError:
        raise AnswerError("is no peer: it is not text") from None


def _shown(url: str) -> str:
    """The URL without a password, for logs."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
