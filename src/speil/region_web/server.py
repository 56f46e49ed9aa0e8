"""The server of the page of all regions, on loopback.

| route | method | answer |
|---|---|---|
| `/?token=…` | GET | sets the cookie and leads to `/` |
| `/` | GET | the page |
| `/events` | GET | what the page shows, as server-sent events |
| `/verify?observe=SECONDS` | POST | the checks of `speil region verify`, as JSON |
| `/<file>` | GET | the page's script and style |
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from speil.http1.guard import Guard, Refused
from speil.http1.message import Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.region_web.collector import OBSERVE_SECONDS_MAX, Collector, VerifyRunningError
from speil.region_web.session import Session
from speil.setting import ListenAddress, SettingError, duration
from speil.survey.error import SurveyError
from speil.web.answers import refuse, send_json, until_abandoned
from speil.web.assets import SHARED, send_file
from speil.web.event_stream import EventStreams
from speil.web.headers import SECURITY_HEADERS

CONNECTIONS = Bounds(total=64, own=64, per_share=64)  # a browser opens six for each of a few pages
OBSERVE_DEFAULT = "5s"
_FILES = {"/": "region.html", "/region.js": "region.js", "/map.js": "map.js", **{f"/{name}": name for name in SHARED}}


class RegionWeb:
    """Answers the requests of the page."""

    def __init__(self, collector: Collector, session: Session) -> None:
        self._collector, self._session, self._guard = collector, session, Guard()
        self._streams = EventStreams(collector)

    @asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[None]:
        """Listen on loopback. Raises OSError."""
        server = GuardedServer("region-web", self.answer, CONNECTIONS)
        async with server.serve(ListenAddress("127.0.0.1", port)):
            yield

    async def answer(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        acts = request.method == "POST"
        if (refused := self._guard.refusal(request, acts=acts)) is not None:
            await refuse(reply, refused)
        elif self._session.begins(request):
            await reply.send(303, [("Location", "/"), self._session.set_cookie, *SECURITY_HEADERS])
        elif not self._session.allows(request):
            await refuse(reply, Refused(403, "open the address that `speil region web` has printed"))
        elif acts and request.path == "/verify":
            await self._verify(request, reply)
        elif request.method not in ("GET", "HEAD"):
            await refuse(reply, Refused(405, "only GET, and POST /verify"))
        elif request.path == "/events":
            await self._streams.answer(request, reply)
        elif (name := _FILES.get(request.path)) is not None:
            await send_file(reply, name)
        else:
            await refuse(reply, Refused(404, "there is no such page"))

    async def _verify(self, request: Request, reply: Reply) -> None:
        try:
            observe = float(duration.parse(request.query.get("observe", OBSERVE_DEFAULT)))
            if not 0 <= observe <= OBSERVE_SECONDS_MAX:
                raise SettingError(f"observe is at most {OBSERVE_SECONDS_MAX:g} s")
            async with until_abandoned(reply):
                found = await self._collector.verify(observe)
        except SettingError as error:
            await refuse(reply, Refused(400, str(error)))
        except VerifyRunningError:
            await refuse(reply, Refused(409, "the checks are running already"))
        except SurveyError as error:
            await refuse(reply, Refused(502, str(error)))
        except TimeoutError:
            await refuse(reply, Refused(503, "the request was given up"))
        else:
            await send_json(reply, found)
