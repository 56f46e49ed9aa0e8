"""POST `/debug/web/trace`: traces an image, and answers `speil.trace.document` as JSON.

A trace asks peers, and with `measure=true` it downloads from them, so traces are few at a time, and strangers may start
one now and then. The request has no body; the query has `image`, `measure` (true or false) and `platform`.
"""

from __future__ import annotations

import asyncio

from speil.http1.guard import Refused
from speil.http1.message import Request
from speil.http1.places import Place
from speil.observe.logs import get_log
from speil.setting import SettingError, boolean
from speil.token_bucket import Buckets
from speil.trace.document import document
from speil.trace.named import TraceError, parse_platform, parse_reference
from speil.web.series import WebSeries
from speil.web.tracer import Tracer

TRACES_MAX = 2  # at a time: a measuring pull is to see the node's bandwidth, not the other trace
# of one address that is not this node's: an operator traces a few images, and looks at the answers
TRACES_BURST, TRACES_PER_SECOND = 10, 0.2
RATES_MAX = 256  # addresses and prefixes whose rate is remembered
IMAGE_CHARS_MAX = 600  # registry, repository, tag and digest at their limits

log = get_log("web")


class TraceRoute:
    """The traces of one node, of which `running` are under way."""

    def __init__(self, tracer: Tracer, series: WebSeries) -> None:
        self._tracer, self._series = tracer, series
        self._rates = Buckets(TRACES_BURST, TRACES_PER_SECOND, RATES_MAX)
        self.running = 0

    async def answer(self, request: Request) -> Refused | dict[str, object]:
        """The document, or why there is none."""
        query = request.query
        try:
            image = query.get("image", "")
            if len(image) > IMAGE_CHARS_MAX:
                raise TraceError(f"the image's name has more than {IMAGE_CHARS_MAX} characters")
            reference, platform = parse_reference(image), parse_platform(query.get("platform", ""))
            measure = bool(boolean.parse(query.get("measure", "false")))
        except (TraceError, SettingError) as error:
            return Refused(400, str(error))
        if self.running >= TRACES_MAX or not self._has_turn(request.place):
            self._series.refused.labels("traces").inc()
            return Refused(429, "other traces are running: try again in a moment")
        self.running += 1
        try:
            found = document(await self._tracer.trace(reference, measure=measure, platform=platform))
        finally:
            self.running -= 1
        self._series.traces.labels(str(measure).lower()).inc()
        log.info(
            "image traced", image=found["image"], client=request.place.host, measured=measure, does=found["does"],
            duration_ms=round(found["seconds"] * 1e3, 1),
        )  # fmt: skip
        return found

    def _has_turn(self, place: Place) -> bool:
        if place.is_own:
            return True
        now = asyncio.get_running_loop().time()
        return self._rates.of(place.share, now).take(now)
