"""Asks the holders of a tag for its digest: carries out what `fetch.tag_poll` decides."""

from __future__ import annotations

import asyncio

from speil.fetch.tag_answers import HolderAnswer, Scope
from speil.fetch.tag_poll import TagPoll
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci import platform as platforms
from speil.oci.digest import Digest, DigestError
from speil.oci.endpoint import Content
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_error import Outcome, PeerError

IMAGES_HEADER = "X-Speil-Images"
IMAGES_MAX = 64  # named in the header, 90 bytes each; an index has a dozen platforms

log = get_log("tags")


class Holders:
    """One poll: `run` it once. `asked` counts the requests."""

    def __init__(self, access: PeerAccess, content: Content, scope: Scope) -> None:
        self._access, self._content, self._now = access, content, asyncio.get_running_loop().time
        self._judge = access.judge(verified=True, key=content.key)
        self._poll = TagPoll(scope, self._now(), access.config.search_seconds)
        self._changed = asyncio.Event()

    @property
    def asked(self) -> int:
        """Requests sent to peers so far."""
        return self._poll.asked

    async def run(self) -> list[HolderAnswer]:
        """The holders' answers, first come first."""
        poll = self._poll
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._search())]
            while poll.next_deadline(self._now()) > self._now():
                self._changed.clear()
                tasks += [group.create_task(self._ask(peer)) for peer in poll.asks(self._now())]
                try:
                    async with asyncio.timeout_at(poll.next_deadline(self._now())):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            for task in tasks:
                task.cancel()
        return poll.answers

    async def _search(self) -> None:
        async for peer in self._access.find(self._content.key):
            if self._judge.standing(peer.peer_id, self._now()) is not None:
                self._poll.found(peer, self._now())
                self._changed.set()
        self._poll.search_ended()
        self._changed.set()

    async def _ask(self, peer: PeerInfo) -> None:
        try:
            headers = await self._access.request_head(self._content, peer, FIRST_BYTE_SECONDS_MAX)
            self._poll.answered(_answer(peer, headers), self._now())
        except PeerError as error:
            log.debug("a peer can't answer a tag", key=self._content.key, peer=peer.peer_id, outcome=error.outcome)
            self._poll.failed(peer.peer_id, self._now())
        finally:
            self._changed.set()


def _answer(peer: PeerInfo, headers: dict[str, str]) -> HolderAnswer:
    """Raises PeerError."""
    try:
        digest = Digest.parse(headers.get("docker-content-digest", ""))
    except DigestError as error:
        raise PeerError(Outcome.BAD_ANSWER, "a tag without its digest") from error
    stated = headers.get(IMAGES_HEADER.lower())
    images = platforms.read(stated, IMAGES_MAX) if stated else None
    return HolderAnswer(peer, digest, tuple(images) if images else None)
