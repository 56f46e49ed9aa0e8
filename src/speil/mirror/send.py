"""The only place that sends answers.

A body that can't be finished ends with FIN, never RST: containerd repairs the one and fails the pull on the other. A
client that hangs up is no error.
"""

from __future__ import annotations

from functools import partial

from speil.http1.reply import ONE_WRITE_BYTES_MAX, Reply
from speil.mirror.plan import Plan
from speil.mirror.record import Record, Recorder
from speil.mirror.series import MirrorSeries
from speil.sources.base import BrokeOffError, Opened
from speil.wire.progress import Progress
from speil.wire.sink import ClientGoneError, Pacing, Sink
from speil.wire.turns import Wire


class Sender:
    """Sends plans; one for each registry port."""

    def __init__(self, wire: Wire, recorder: Recorder, series: MirrorSeries) -> None:
        self._wire, self._recorder, self._series = wire, recorder, series

    async def send(self, plan: Plan, reply: Reply, record: Record, pacing: Pacing | None = None) -> None:
        """Send one answer and note in the record what came of it. `pacing` limits the speed of the body."""
        record.status, record.length = plan.status, plan.length
        if plan.opened is None:
            await reply.send(plan.status, plan.headers, plan.body)
            return
        record.outcome = "served"
        try:
            await self._send_opened(plan, plan.opened, reply, record, pacing)
            record.is_complete = True
        except BrokeOffError as error:
            record.outcome = f"broke off: {error}"
        except (ClientGoneError, ConnectionError):
            record.gone()

    async def _send_opened(
        self, plan: Plan, opened: Opened, reply: Reply, record: Record, pacing: Pacing | None
    ) -> None:
        count = partial(self._recorder.sent, record)
        if record.method == "HEAD":
            async with reply.stream(plan.status, plan.headers, plan.length):
                return
        if (data := opened.data) is not None and len(data) <= ONE_WRITE_BYTES_MAX:
            count(len(data))
            await reply.send(plan.status, plan.headers, data)
            return
        async with reply.stream(plan.status, plan.headers, plan.length) as out:
            sink = Sink(self._wire, out, count, pacing)
            # this node's containerd may take its time; any other client has to make progress
            is_own = record.place.is_own and not (record.asked and record.asked.from_peer)
            progress = None if is_own else Progress(out.transport, lambda: sink.sent, self._series.http_slow_bodies.inc)
            try:
                await opened.send(sink)
            except ClientGoneError:
                sink.hang_up()
                raise
            finally:
                if progress:
                    progress.close()
                sink.close()
