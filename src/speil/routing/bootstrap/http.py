"""`http`: a peer's id and addresses from a URL, and the page that gives ours.

`GET /id` answers `{"ID": "12D3…", "Addrs": ["/ip4/…/tcp/5001"]}` (go-libp2p's AddrInfo, Spegel since 0.1); the plain
multiaddr text of older Spegels is understood too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
from aiohttp import web

from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.routing.bootstrap.base import BootstrapError
from speil.setting import ListenAddress

REQUEST_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024


class HttpBootstrapper:
    """Asks `peer_url` (empty: nobody) and serves `/id` at `listen` (None: no page)."""

    kind = "http"

    def __init__(self, peer_url: str, listen: ListenAddress | None) -> None:
        self._url, self._listen = peer_url, listen

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper."""
        if not self._url:
            return []
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._url) as response:
                if response.status != 200:
                    raise BootstrapError(f"{self._url} answered {response.status}")
                text = (await response.content.read(ANSWER_BYTES_MAX)).decode()
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise BootstrapError(f"{self._url} can't be asked: {error!r}") from error
        found = _parse(self._url, text.strip())
        return [address for address in found if address.peer_id != local.peer_id]

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """Serve `/id`."""
        if self._listen is None:
            return

        async def answer(request: web.Request) -> web.Response:
            peer = local()
            return web.json_response({"ID": str(peer.peer_id), "Addrs": [str(address) for address in peer.addresses]})

        app = web.Application()
        app.router.add_get("/id", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._listen.host or None, self._listen.port).start()
            await asyncio.Event().wait()
        except OSError as error:
            raise BootstrapError(f"--http-bootstrap-addr: can't listen on {self._listen}: {error.strerror}") from error
        finally:
            await runner.cleanup()


def _parse(url: str, text: str) -> list[Multiaddr]:
    try:
        if text.startswith("/"):
            return [Multiaddr.parse(text)]
        document = json.loads(text)
        peer_id = PeerId.parse(document["ID"])
        return [Multiaddr.parse(address).with_peer_id(peer_id) for address in document["Addrs"] or ()]
    except (FormatError, ValueError, KeyError, TypeError) as error:
        raise BootstrapError(f"{url} answered something that is no peer: {error!r}") from error
