"""The tests that every `Ingests` must pass. Derive a test class and implement `opened`."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager, aclosing
from random import Random
from typing import Protocol

import pytest

from speil.oci.digest import Digest
from speil.store.base import NotFoundError
from speil.store.growing_content import GrowingContent, IngestEnd, IngestEndedError
from speil.store.ingests import IngestEvent, IngestEventKind, Ingests
from speil.testing.eventually import eventually

DATA = Random(17).randbytes(300_000)
DIGEST = Digest.of(DATA)
PART = 100_000
SECONDS_MAX = 30.0  # for whatever is waited for


class Download(Protocol):
    """A download that the runtime under test writes."""

    async def write(self, data: bytes) -> None:
        """Append bytes."""

    async def commit(self) -> None:
        """Verify and commit; content that is wrong is deleted, now or after `abort`. Raises nothing."""

    async def abort(self) -> None:
        """Delete it."""

    async def rewind(self) -> None:
        """Begin again at the first byte, in the same file."""


class Runtime(Protocol):
    """Writes ingests, as another program would."""

    async def begin(self, digest: Digest, total: int | None) -> Download:
        """Begin a download. Several of the same content may go on at once. It has no bytes yet."""


async def opened_when_there(ingests: Ingests, digest: Digest = DIGEST) -> GrowingContent:
    """The open ingest, once the adapter has seen it."""
    await eventually(lambda: ingests.find(digest), what="the ingest is found")
    return ingests.open(digest)


def bytes_of(content: GrowingContent) -> bytes:
    """The bytes that are there."""
    return os.pread(content.fd, content.size, 0)


class IngestConformance:
    """The suite. A derived class implements `opened`."""

    def opened(self) -> AbstractAsyncContextManager[tuple[Ingests, Runtime]]:
        """Running ingests, of which there are none, and the runtime that writes some."""
        raise NotImplementedError

    async def test_nothing_is_found_where_nothing_is_downloaded(self) -> None:
        async with self.opened() as (ingests, _):
            assert ingests.find(DIGEST) is None
            assert ingests.current() == []
            assert ingests.growth_bytes_per_second == 0.0
            assert ingests.is_readable
            with pytest.raises(NotFoundError):
                ingests.open(DIGEST)

    async def test_a_download_is_followed_to_its_commit(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            content = await opened_when_there(ingests)
            assert (content.digest, content.total, content.end) == (DIGEST, len(DATA), None)
            assert await content.wait(0, SECONDS_MAX) == PART
            assert bytes_of(content) == DATA[:PART]
            for stop in (2 * PART, 3 * PART):
                await download.write(DATA[content.size : stop])
                assert await content.wait(stop - 1, SECONDS_MAX) == stop
                assert bytes_of(content) == DATA[:stop]
            before = os.fstat(content.fd).st_ino
            found = ingests.find(DIGEST)
            assert found is not None
            assert found.is_whole
            await download.commit()
            assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
            assert os.fstat(content.fd).st_ino == before, "the same file"
            assert bytes_of(content) == DATA
            await eventually(lambda: ingests.find(DIGEST) is None, what="the ingest is over")
            content.close()
            content.close()
            assert ingests.growth_bytes_per_second > 0.0

    async def test_a_wait_ends_at_its_timeout_with_what_is_there(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            content = await opened_when_there(ingests)
            assert await content.wait(content.size, 0.01) == PART
            assert await content.ended(0.01) is None
            content.close()
            await download.abort()

    async def test_a_download_that_is_cancelled_is_gone(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            content = await opened_when_there(ingests)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(content.ended(SECONDS_MAX))
                await download.abort()
                assert await waiting is IngestEnd.GONE
            with pytest.raises(IngestEndedError) as caught:
                await content.wait(content.size, SECONDS_MAX)
            assert caught.value.end is IngestEnd.GONE
            assert await content.wait(0, SECONDS_MAX) == PART, "what is there can still be sent"
            assert bytes_of(content) == DATA[:PART]
            content.close()
            with pytest.raises(NotFoundError):
                ingests.open(DIGEST)

    async def test_a_download_of_wrong_bytes_is_gone_and_suspect(self) -> None:
        async with self.opened() as (ingests, runtime), aclosing(ingests.events()) as events:  # type: ignore[type-var]
            assert (await anext(events)).kind is IngestEventKind.RESYNC
            for is_followed in (True, False):
                download = await runtime.begin(DIGEST, len(DATA))
                await download.write(DATA[:PART])
                content = await opened_when_there(ingests)
                if not is_followed:
                    content.close()
                await download.write(bytes(len(DATA) - PART))
                await download.commit()
                await download.abort()
                if is_followed:
                    assert await content.ended(SECONDS_MAX) is IngestEnd.GONE
                    content.close()
                async with asyncio.timeout(SECONDS_MAX):
                    async for event in events:
                        if event.kind is IngestEventKind.ENDED:
                            break
                assert event.is_suspect

    async def test_a_writer_that_begins_again_has_shrunk_it(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[: 2 * PART])
            content = await opened_when_there(ingests)
            assert await content.wait(0, SECONDS_MAX) == 2 * PART
            await download.rewind()
            assert await content.ended(SECONDS_MAX) is IngestEnd.SHRUNK
            with pytest.raises(IngestEndedError):
                await content.wait(PART, SECONDS_MAX)
            content.close()
            await download.write(DATA)
            again = await opened_when_there(ingests)
            assert await again.wait(len(DATA) - 1, SECONDS_MAX) == len(DATA)
            await download.commit()
            assert await again.ended(SECONDS_MAX) is IngestEnd.COMMITTED
            assert bytes_of(again) == DATA
            again.close()

    async def test_without_a_total_it_is_not_followed(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, None)
            await download.write(DATA[:PART])
            await eventually(lambda: ingests.find(DIGEST), what="the ingest is found")
            with pytest.raises(NotFoundError, match="size"):
                ingests.open(DIGEST)
            await download.abort()

    async def test_a_download_that_does_not_grow_is_not_opened(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            found = await eventually(lambda: ingests.find(DIGEST), what="the ingest is found")
            assert found.total == len(DATA)
            await eventually(lambda: (one := ingests.find(DIGEST)) and one.silent_seconds > 0.2, what="it is silent")
            with pytest.raises(NotFoundError, match="stalled"):
                ingests.open(DIGEST, stall_seconds=0.2)
            await download.write(DATA[PART : 2 * PART])
            await eventually(lambda: (one := ingests.find(DIGEST)) and one.size == 2 * PART, what="it grew")
            ingests.open(DIGEST, stall_seconds=SECONDS_MAX).close()
            await download.abort()

    async def test_of_two_downloads_the_longer_one_is_followed_and_either_commit_counts(self) -> None:
        async with self.opened() as (ingests, runtime):
            first, second = await runtime.begin(DIGEST, len(DATA)), await runtime.begin(DIGEST, len(DATA))
            await first.write(DATA[:PART])
            await second.write(DATA[: 2 * PART])
            await eventually(lambda: len(ingests.current()) == 2, what="both are seen")
            content = ingests.open(DIGEST)
            assert await content.wait(PART, SECONDS_MAX) == 2 * PART
            await first.write(DATA[PART:])
            await first.commit()
            await second.abort()
            assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
            assert bytes_of(content) == DATA, "the descriptor has what the other download committed"
            content.close()

    async def test_two_readers_do_not_disturb_each_other(self) -> None:
        async with self.opened() as (ingests, runtime):
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            one, other = await opened_when_there(ingests), await opened_when_there(ingests)
            async with asyncio.TaskGroup() as group:
                waits = [group.create_task(reader.wait(PART, SECONDS_MAX)) for reader in (one, other)]
                lost = group.create_task(other.wait(PART, SECONDS_MAX))
                await asyncio.sleep(0)
                lost.cancel()
                await download.write(DATA[PART:])
                assert [await wait for wait in waits] == [len(DATA)] * 2
            one.close()
            await download.commit()
            assert await other.ended(SECONDS_MAX) is IngestEnd.COMMITTED
            assert bytes_of(other) == DATA
            other.close()

    async def test_events_of_a_download(self) -> None:
        async with self.opened() as (ingests, runtime), asyncio.TaskGroup() as group:
            seen: list[IngestEvent] = []

            async def listen() -> None:
                async for event in ingests.events():
                    seen.append(event)

            def kinds(kind: IngestEventKind) -> list[IngestEvent]:
                return [event for event in seen if event.kind is kind]

            listening = group.create_task(listen())
            await eventually(lambda: seen, what="the first event")
            assert seen[0].kind is IngestEventKind.RESYNC
            download = await runtime.begin(DIGEST, len(DATA))
            await download.write(DATA[:PART])
            await eventually(lambda: kinds(IngestEventKind.BEGAN), what="it began")
            await download.write(DATA[PART:])
            await eventually(
                lambda: (grew := kinds(IngestEventKind.GREW)) and grew[-1].size == len(DATA), what="it grew"
            )
            await download.commit()
            (ended,) = await eventually(lambda: kinds(IngestEventKind.ENDED), what="it ended")
            assert (ended.digest, ended.end, ended.total) == (DIGEST, IngestEnd.COMMITTED, len(DATA))
            assert not ended.is_suspect
            assert ingests.current() == []
            listening.cancel()
