"""Tags: which digest does a tag have, and can the content behind it be supplied?

A tag's digest is a promise: once containerd has it, it comes for exactly that content, and where the upstream has moved
the tag and removed what it named, only the mesh could help. So:

- A holder answers a tag where it has the whole image for at least one platform in its own store, and says for which
  (`X-Speil-Images`). What others hold does not count for it: it can't vouch for them.
- Asked by containerd, a node takes its own word if it holds the whole image for its own platform, and asks
  some others (MEMBERS); where peers do not prove themselves, all that it can find (STRANGERS). Where they disagree the
  upstream decides. Where they agree the answer is given if the image for this node's platform can be supplied: a holder
  said that it has it, or (Spegel and older speils say nothing) each of its blobs is held by this node or by a peer that
  says so when asked.
- In all other cases it is a miss, and containerd asks the upstream, as it would without speil.
- What containerd then comes for and nobody has tells that the promise was wrong: a client asked for another platform
  than the node's, or a holder's disk fails. The tag is a miss for a while, so that the next try goes upstream.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from speil.fetch.candidates import Judge
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.fetch.trust import NO_CAUTION
from speil.mirror.peer_client import PeerError
from speil.mirror.peer_race import NoPeerError
from speil.mirror.relay import Relay
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci import platform as platforms
from speil.oci.digest import Digest, DigestError
from speil.oci.endpoint import Content
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.oci.platform import Platform, PlatformImage
from speil.store.base import ContentStore, NotFoundError, StoreError
from speil.store.walk import parsed, read_manifest
from speil.store.whole import CONFIG_BYTES_MAX, NESTED_MAX, Wholeness

IMAGES_HEADER = "X-Speil-Images"
IMAGES_MAX = 64  # named in the header, 90 bytes each; an index has a dozen platforms
HOLDERS_ASKED_MAX = 16  # stale records cost a round trip each
SUPPLY_SECONDS_MAX = 1.5  # to find out whether the content can be supplied; the alternative is the upstream
PROMISED_MAX = 10_000  # manifests and blobs that answered tags name; an image names a dozen
BROKEN_MAX = 1000  # tags that could not be supplied
BROKEN_SECONDS = 10 * 60.0  # the kubelet's longest back-off is five minutes
BLOB_BROKEN_SECONDS = 60.0  # holders may only have been busy: long enough for the kubelet's next two tries
SUPPLY_AT_ONCE_MAX = 8  # blobs asked for at the same time

log = get_log("tags")


@dataclass(frozen=True, slots=True)
class Scope:
    """How far a tag's holders are asked: answers that are compared, and waits for more of them."""

    holders_max: int
    more_holders_seconds: float  # after the first holder was found, for the search to find others
    more_answers_seconds: float  # after the first answer, for the others


# two agree by chance of time, more cost more than they tell; a lookup that finds one mostly finds the others at once
MEMBERS = Scope(3, 0.005, 0.1)
# whoever is quick must not outvote the others: all who can be asked are, and one who says another digest is enough
STRANGERS = Scope(HOLDERS_ASKED_MAX, 0.05, 0.3)


class TagMissError(Exception):
    """The upstream is to be asked; `outcome` is the metric's label, the message is for the log."""

    def __init__(self, outcome: str, message: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.outcome, self.attempts = outcome, attempts


@dataclass(frozen=True, slots=True)
class Held:
    """A tag of this node's store: its digest, and the images below it that are whole here."""

    digest: Digest
    images: tuple[PlatformImage, ...]


@dataclass(frozen=True, slots=True)
class TagAnswer:
    """What containerd may be told: the manifest of a tag, and who gave it (None: the store)."""

    digest: Digest
    data: bytes
    manifest: Manifest
    peer: PeerInfo | None
    attempts: int


@dataclass(frozen=True, slots=True)
class _Voice:
    """A holder's answer; `images` is None where it does not say what it has."""

    peer: PeerInfo
    digest: Digest
    images: tuple[PlatformImage, ...] | None


def this_machine() -> Platform:
    """The platform that a containerd on this machine pulls."""
    return Platform.of("linux", os.uname().machine)


class Tags:
    """Answers tags from the store and from peers."""

    def __init__(
        self,
        store: ContentStore,
        relay: Relay,
        metrics: Metrics,
        node: Iterable[Platform] = (),
        *,
        proven: Callable[[], bool] = lambda: False,
    ) -> None:
        """`node` are the platforms that this node's containerd pulls; none: this machine's.

        `proven` tells whether a peer's answer is a member's: where it is not, strangers may be among the holders.
        """
        self._proven = proven
        self._store, self._relay, self._metrics = store, relay, metrics
        self._whole = Wholeness(store)
        self._node = tuple(node) or (this_machine(),)
        self._promised: OrderedDict[Digest, str] = OrderedDict()  # content, and the tag that led to it
        self._broken: OrderedDict[str, float] = OrderedDict()  # a tag, and until when it is a miss

    async def held(self, name: str) -> Held | None:
        """A tag that may be answered to a peer. Raises StoreUnavailableError."""
        try:
            digest = await self._store.resolve(name)
        except NotFoundError:
            return None
        images = await self._whole.images(digest)
        return Held(digest, tuple(images)) if images else None

    async def resolve(self, asked: Content) -> TagAnswer:
        """What the node's containerd may be told of a tag. Raises TagMissError."""
        try:
            answer = await self._resolve(asked)
        except TagMissError as miss:
            self._metrics.tag_answers.labels(miss.outcome).inc()
            raise
        self._metrics.tag_answers.labels("peer" if answer.peer else "store").inc()
        await self._promise_all(asked.key, answer)
        return answer

    def served(self, digest: Digest, manifest: Manifest) -> None:
        """The node got a manifest: it comes for what that names."""
        if key := self._promised.get(digest):
            self._promise(key, (child.digest for child in manifest.children))

    def not_supplied(self, digest: Digest, *, is_manifest: bool) -> None:
        """The node came for content that nobody has: the tag that led to it is a miss for a while."""
        if (key := self._promised.pop(digest, None)) is None:
            return
        seconds = BROKEN_SECONDS if is_manifest else BLOB_BROKEN_SECONDS
        self._broken[key] = max(asyncio.get_running_loop().time() + seconds, self._broken.get(key, 0.0))
        self._broken.move_to_end(key)
        if len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)
        log.info(
            "what a tag named can't be supplied: it is left to the upstream",
            tag=key,
            key=digest,
            seconds=round(seconds),
        )

    async def _promise_all(self, key: str, answer: TagAnswer) -> None:
        children = [child.digest for child in answer.manifest.children]
        self._promise(key, children)
        if answer.peer is None or not answer.manifest.is_index:
            return
        # a try that failed has left manifests here, and the next does not come for them
        try:
            for digest in children:
                if manifest := await self._whole.manifest(digest):
                    self._promise(key, manifest.needs)
        except StoreError as error:
            log.debug("the store does not answer for a tag", key=key, error=error)

    def _promise(self, key: str, digests: Iterable[Digest]) -> None:
        for digest in digests:
            self._promised[digest] = key
            self._promised.move_to_end(digest)
            if len(self._promised) > PROMISED_MAX:
                self._promised.popitem(last=False)

    async def _resolve(self, asked: Content) -> TagAnswer:
        if self._broken.get(asked.key, 0.0) > asyncio.get_running_loop().time():
            raise TagMissError("not_whole", "what it named could not be supplied a while ago")
        own = await self._own(asked)
        poll = _Poll(self._relay, asked, MEMBERS if self._proven() else STRANGERS)
        voices = await poll.run()
        digests = {own.digest} if own else set[Digest]()
        digests.update(voice.digest for voice in voices)
        if len(digests) > 1:
            self._tell_disagreement(asked, own, voices)
            raise TagMissError("disagreement", "holders disagree on the tag's digest", poll.asked)
        if not digests:
            raise TagMissError("none", "all requests to peers failed" if poll.asked else "no peer found", poll.asked)
        (digest,) = digests
        if (loaded := await self._manifest(asked, digest)) is None:
            raise TagMissError("not_whole", "its manifest can't be had", poll.asked)
        if own is None:
            told = {one.manifest: one for voice in voices for one in voice.images or ()}
            try:
                async with asyncio.timeout(SUPPLY_SECONDS_MAX):
                    supplied = await self._is_supplied(asked, digest, loaded, told)
            except TimeoutError:
                supplied = False
            if not supplied:
                raise TagMissError("not_whole", "its content can't be supplied for this node's platform", poll.asked)
        return TagAnswer(digest, *loaded, voices[0].peer if own is None else None, poll.asked)

    async def _own(self, asked: Content) -> Held | None:
        """This node's own word: where it has all that its containerd would come for."""
        try:
            held = await self.held(asked.key)
            if held is None or (loaded := await read_manifest(self._store, held.digest)) is None:
                return None
            told = {one.manifest: one for one in held.images}
            for node in self._node:
                if await self._chosen(asked, held.digest, loaded, node, told, local=True) is not True:
                    return None
        except StoreError as error:
            log.debug("the store does not answer for a tag", key=asked.key, error=error)
            return None
        return held

    def _tell_disagreement(self, asked: Content, own: Held | None, voices: list[_Voice]) -> None:
        said = {str(voice.peer.peer_id): str(voice.digest) for voice in voices}
        if own:
            said["this node"] = str(own.digest)
        log.info(
            "holders disagree on a tag: the upstream decides",
            key=asked.key,
            digests=sorted(set(said.values())),
            holders=[f"{who}={digest}" for who, digest in said.items()],
        )

    # --- can it be supplied? ----------------------------------------------------------------------------

    async def _is_supplied(
        self, asked: Content, digest: Digest, loaded: tuple[bytes, Manifest], told: dict[Digest, PlatformImage]
    ) -> bool:
        """Whether the image for each of this node's platforms can be had, from here and from peers together."""
        for node in self._node:
            chosen = await self._chosen(asked, digest, loaded, node, told, local=False)
            if chosen is True:
                continue
            if chosen is False or not await self._can_be_had(asked, chosen.needs):
                return False
        return True

    async def _chosen(
        self,
        asked: Content,
        digest: Digest,
        loaded: tuple[bytes, Manifest],
        node: Platform,
        told: dict[Digest, PlatformImage],
        *,
        local: bool,
    ) -> Manifest | bool:
        """Follow a tag's manifest down to the platform `node`, as containerd does.

        True: a holder says that it has the whole image. False: the image has no such platform, or a manifest on the way
        is nowhere. A manifest: the one that containerd would pull; its content is not checked yet.
        """
        below = False
        for _ in range(NESTED_MAX):
            manifest = loaded[1]
            if not manifest.is_index:
                if (image := told.get(digest)) and (below or _takes(node, image.platform)):
                    return True
                if local or not (below or _takes(node, await self._platform(asked, manifest))):
                    return False
                return manifest
            if (entry := platforms.best(manifest.entries, node)) is None:
                return False
            if entry.manifest in told:
                return True
            following = None if local else await self._manifest(asked, entry.manifest)
            if following is None and not (local and (following := await self._own_manifest(entry.manifest))):
                return False
            digest, loaded, below = entry.manifest, following, True
        return False

    async def _can_be_had(self, asked: Content, digests: Iterable[Digest]) -> bool:
        """Whether each of these is in the store, or a peer says that it has it."""
        missing = [digest for digest in digests if not await self._is_here(digest)]
        places = asyncio.Semaphore(SUPPLY_AT_ONCE_MAX)

        async def ask(digest: Digest) -> None:
            content = Content("blobs", asked.registry, asked.name, digest)
            async with places, self._relay.session(content, "HEAD") as session:
                await session.head()

        try:
            async with asyncio.TaskGroup() as group:
                for digest in missing:
                    group.create_task(ask(digest))
        except ExceptionGroup as errors:
            if errors.split((NoPeerError, PeerError))[1] is not None:
                raise
            return False
        return True

    async def _is_here(self, digest: Digest) -> bool:
        try:
            await self._store.size(digest)
        except StoreError:
            return False
        return True

    async def _platform(self, asked: Content, manifest: Manifest) -> Platform | None:
        """The platform of a manifest that no index names, from its config. Raises TagMissError."""
        if manifest.config is None:
            return None
        if await self._is_here(manifest.config):
            return await self._whole.platform(manifest)
        content = Content("blobs", asked.registry, asked.name, manifest.config)
        if (data := await self._fetch(content, CONFIG_BYTES_MAX)) is None:
            raise TagMissError("not_whole", "its config can't be had")
        return platforms.platform_of_config(data)

    async def _manifest(self, asked: Content, digest: Digest) -> tuple[bytes, Manifest] | None:
        """A manifest, from the store or from a peer."""
        if loaded := await self._own_manifest(digest):
            return loaded
        content = Content("manifests", asked.registry, asked.name, digest)
        data = await self._fetch(content, MANIFEST_BYTES_MAX)
        manifest = await parsed(data) if data is not None else None
        return (data, manifest) if data is not None and manifest is not None else None

    async def _fetch(self, content: Content, size_bytes_max: int) -> bytes | None:
        """Small content from a peer, verified; None where nobody has it."""
        found: bytes | None = None

        async def keep(data: bytes, told: str) -> str:
            nonlocal found
            found = data
            return told

        try:
            async with self._relay.session(content, "GET") as session:
                await session.whole(size_bytes_max, keep)
        except NoPeerError:
            return None
        return found

    async def _own_manifest(self, digest: Digest) -> tuple[bytes, Manifest] | None:
        try:
            return await read_manifest(self._store, digest)
        except (StoreError, OSError):
            return None


def _takes(node: Platform, platform: Platform | None) -> bool:
    return platform is None or platform in node.runs


class _Poll:
    """Asks the holders of one tag for its digest, some at once; `asked` counts them."""

    def __init__(self, relay: Relay, content: Content, scope: Scope) -> None:
        self._scope = scope
        self._relay, self._content, self._now = relay, content, asyncio.get_running_loop().time
        self._judge = Judge(relay.health, relay.trust, NO_CAUTION, relay.config.zone, relay.zone_of, True, content.key)
        self._candidates: dict[PeerId, PeerInfo] = {}
        self._voices: list[_Voice] = []
        self._open: dict[PeerId, float] = {}  # when each was asked
        self.asked = 0
        self._searching = True
        self._changed = asyncio.Event()
        self._first_found: float | None = None
        self._first_heard: float | None = None
        self._patience = self._now() + relay.config.search_seconds

    async def run(self) -> list[_Voice]:
        """Their answers."""
        end = self._now() + FIRST_BYTE_SECONDS_MAX
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._search())]
            while min(self._until(), end) > self._now():
                self._changed.clear()
                while self._candidates and len(self._voices) + self._quick < self._scope.holders_max:
                    if self.asked >= HOLDERS_ASKED_MAX:
                        self._candidates.clear()
                        break
                    peer = self._candidates.pop(next(iter(self._candidates)))
                    self._open[peer.peer_id] = self._now()
                    self.asked += 1
                    tasks.append(group.create_task(self._ask(peer)))
                try:
                    async with asyncio.timeout_at(min(self._until(), end)):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            for task in tasks:
                task.cancel()
        return self._voices

    def _until(self) -> float:
        """Until when to wait, as things stand; in the past where there is nothing to wait for."""
        if len(self._voices) >= self._scope.holders_max:
            return 0.0
        now = self._now()
        if not self._open and not self._candidates:
            if not self._searching or self.asked >= HOLDERS_ASKED_MAX:
                return 0.0
            if self._voices and self._first_found is not None:
                return self._first_found + self._scope.more_holders_seconds
            return self._patience
        if self._first_heard is not None:
            return self._first_heard + self._scope.more_answers_seconds
        wakes = [asked + self._scope.more_answers_seconds for asked in self._open.values()]
        return min((wake for wake in wakes if wake > now), default=now + FIRST_BYTE_SECONDS_MAX)

    @property
    def _quick(self) -> int:
        """How many may be expected to answer soon; for the others one more each is asked."""
        now = self._now()
        return sum(now < asked + self._scope.more_answers_seconds for asked in self._open.values())

    async def _search(self) -> None:
        found = self._relay.router.find_providers(self._content.key, timeout_seconds=FIRST_BYTE_SECONDS_MAX)
        seen: set[PeerId] = set()
        async for peer in found:
            if peer.peer_id in seen or self._judge.standing(peer.peer_id, self._now()) is None:
                continue
            seen.add(peer.peer_id)
            self._candidates[peer.peer_id] = peer
            if self._first_found is None:
                self._first_found = self._now()
            self._changed.set()
        self._searching = False
        self._changed.set()

    async def _ask(self, peer: PeerInfo) -> None:
        try:
            voice = await self._voice_of(peer)
            self._voices.append(voice)
            if self._first_heard is None:
                self._first_heard = self._now()
        except PeerError as error:
            log.debug("a peer can't answer a tag", key=self._content.key, peer=peer.peer_id, outcome=error.outcome)
            self._patience = max(self._patience, self._now() + self._relay.config.search_seconds)
        finally:
            self._open.pop(peer.peer_id, None)
            self._changed.set()

    async def _voice_of(self, peer: PeerInfo) -> _Voice:
        """Raises PeerError."""
        headers = await self._relay.ask_head(self._content, peer, FIRST_BYTE_SECONDS_MAX)
        try:
            digest = Digest.parse(headers.get("docker-content-digest", ""))
        except DigestError as error:
            raise PeerError("bad_answer", "a tag without its digest") from error
        told = headers.get(IMAGES_HEADER.lower())
        images = platforms.read(told, IMAGES_MAX) if told else None
        return _Voice(peer, digest, tuple(images) if images else None)
