"""Tags as sources: a tag's manifest, where the content behind it can be supplied.

A tag's digest is a promise: once containerd has it, it comes for exactly that content. Where the upstream has moved the
tag and removed the old content, only the mesh could still help. So:

- `HeldTags` answers peers. A holder answers a tag where its own store has the whole image for at least one platform,
  and states for which (`X-Speil-Images`). Content of other holders does not count: it can't vouch for them.
- `Tags` answers this node's containerd. The node takes its own word if it holds the whole image for its own platform,
  and asks some other holders (`fetch.tag_answers` says how many). Where they disagree the upstream decides. Where they
  agree the tag is answered if the image for this node's platform can be supplied (`supply`).
- In all other cases it is a miss: containerd asks the upstream, as it would without speil. A tag whose content turned
  out to be missing is a miss for a while (`fetch.tag_promises`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from speil.fetch.tag_answers import MEMBERS, STRANGERS, HolderAnswer, digests_of, whole_images
from speil.fetch.tag_promises import TagPromises
from speil.observe.logs import get_log
from speil.oci import media_type
from speil.oci import platform as platforms
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.manifest import Manifest
from speil.oci.platform import Platform, PlatformImage
from speil.sources.base import ContentRequest, Opened, Origin
from speil.sources.holders import IMAGES_HEADER, IMAGES_MAX, Holders
from speil.sources.in_memory import OpenedManifest
from speil.sources.own_store import OwnStore
from speil.sources.peer_access import PeerAccess
from speil.sources.peers import Peers
from speil.sources.supply import ConfigMissingError, Loaded, Supply
from speil.store.base import ContentStore, NotFoundError, StoreError
from speil.store.sharing import Sharing
from speil.store.walk import read_manifest
from speil.store.whole import Wholeness

SUPPLY_SECONDS_MAX = 1.5  # to find out whether the content can be supplied; the alternative is the upstream

log = get_log("tags")


class _MissError(Exception):
    """The upstream is to be asked; `outcome` is the metric's label, the message is for the log."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Held:
    """A tag of this node's store: its digest, and the images below it that are whole here."""

    digest: Digest
    images: tuple[PlatformImage, ...]


def this_machine() -> Platform:
    """The platform that a containerd on this machine pulls."""
    return Platform.of("linux", os.uname().machine)


class HeldTags:
    """A `Source`: tags of this node's own store, for peers."""

    def __init__(self, store: ContentStore, own: OwnStore, sharing: Sharing, whole: Wholeness) -> None:
        self._store, self._own, self._sharing, self._whole = store, own, sharing, whole

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source. A store that fails is logged and counts as one without the tag."""
        key = request.content.key
        try:
            held = await self.find(key)
            if held is None or not await self._sharing.allows(held.digest):
                return None
            images = platforms.show(held.images[:IMAGES_MAX])
            return await self._own.manifest(held.digest, request.accept, ((IMAGES_HEADER, images),))
        except NotFoundError:
            return None
        except (StoreError, OSError) as error:
            log.warning("the store failed", key=key, error=error)
            return None

    async def find(self, name: str) -> Held | None:
        """A tag that may be answered to a peer. Raises StoreUnavailableError."""
        try:
            digest = await self._store.resolve(name)
        except NotFoundError:
            return None
        images = await self._whole.images(digest)
        return Held(digest, tuple(images)) if images else None


class Tags:
    """A `Source`: tags for this node's containerd, from its store and from peers."""

    def __init__(
        self,
        store: ContentStore,
        held: HeldTags,
        access: PeerAccess,
        peers: Peers,
        whole: Wholeness,
        node: Iterable[Platform] = (),
        *,
        peers_prove_themselves: Callable[[], bool] = lambda: False,
    ) -> None:
        """`node` are the platforms that this node's containerd pulls; none: this machine's.

        `peers_prove_themselves`: whether an answer is a member's; otherwise strangers may be among the holders.
        """
        self._store, self._held, self._access, self._whole = store, held, access, whole
        self._peers_prove_themselves = peers_prove_themselves
        self._supply = Supply(store, peers, whole, tuple(node) or (this_machine(),))
        self._promises = TagPromises()

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source."""
        answers, notes = self._access.series.tag_answers, request.notes
        try:
            opened = await self._answer(request)
        except _MissError as miss:
            answers.labels(miss.outcome).inc()
            notes.asked_peers, notes.miss = True, str(miss)
            return None
        answers.labels(opened.origin).inc()
        notes.asked_peers = opened.origin is Origin.PEER
        await self._promise_all(request.content.key, opened)
        return opened

    def served(self, digest: Digest, manifest: Manifest) -> None:
        """This node's containerd got a manifest; it comes for the content that the manifest names."""
        self._promises.served(digest, (child.digest for child in manifest.children))

    def not_supplied(self, content: Content) -> None:
        """This node's containerd came for content that nobody has: a tag that led to it is a miss for a while."""
        assert content.digest is not None
        now = asyncio.get_running_loop().time()
        if broken := self._promises.broke(content.digest, now, is_manifest=content.is_manifest):
            tag, seconds = broken
            log.info(
                "the content of a tag can't be supplied: the tag is left to the upstream",
                tag=tag,
                key=content.digest,
                seconds=round(seconds),
            )

    async def _answer(self, request: ContentRequest) -> OpenedManifest:
        """Raises _MissError."""
        asked, notes = request.content, request.notes
        if self._promises.is_broken(asked.key, asyncio.get_running_loop().time()):
            raise _MissError("not_whole", "what it named could not be supplied a while ago")
        own = await self._own(asked)
        holders = Holders(self._access, asked, MEMBERS if self._peers_prove_themselves() else STRANGERS)
        answers = await holders.run()
        notes.attempts = holders.asked
        digests = digests_of(own.digest if own else None, answers)
        if len(digests) > 1:
            _log_disagreement(asked, own, answers)
            raise _MissError("disagreement", "holders disagree on the tag's digest")
        if not digests:
            raise _MissError("none", "all requests to peers failed" if holders.asked else "no peer found")
        (digest,) = digests
        if (loaded := await self._supply.manifest(asked, digest)) is None:
            raise _MissError("not_whole", "its manifest can't be had")
        if own is None:
            await self._check_supply(asked, digest, loaded, answers)
            notes.peer = answers[0].peer.peer_id
            self._access.knowledge.learn_sizes(loaded[1].children)
        data, manifest = loaded
        kind = manifest.type_as_told(media_type.asked_type(request.accept))
        return OpenedManifest(Origin.STORE if own else Origin.PEER, digest, kind, data, manifest)

    async def _own(self, asked: Content) -> Held | None:
        """The tag in this node's store, where that has all the content that its containerd would come for."""
        try:
            held = await self._held.find(asked.key)
            if held is None or (loaded := await read_manifest(self._store, held.digest)) is None:
                return None
            whole = {one.manifest: one for one in held.images}
            return held if await self._supply.is_here(asked, held.digest, loaded, whole) else None
        except StoreError as error:
            log.debug("the store does not answer for a tag", key=asked.key, error=error)
            return None

    async def _check_supply(self, asked: Content, digest: Digest, loaded: Loaded, answers: list[HolderAnswer]) -> None:
        """Raises _MissError."""
        try:
            async with asyncio.timeout(SUPPLY_SECONDS_MAX):
                supplied = await self._supply.can_be_had(asked, digest, loaded, whole_images(answers))
        except TimeoutError:
            supplied = False
        except ConfigMissingError:
            raise _MissError("not_whole", "its config can't be had") from None
        if not supplied:
            raise _MissError("not_whole", "its content can't be supplied for this node's platform")

    async def _promise_all(self, key: str, opened: OpenedManifest) -> None:
        assert opened.manifest is not None
        children = [child.digest for child in opened.manifest.children]
        self._promises.promise(key, children)
        if opened.origin is Origin.STORE or not opened.manifest.is_index:
            return
        # an earlier pull that failed has left manifests in the store; containerd does not ask for those again
        try:
            for digest in children:
                if manifest := await self._whole.manifest(digest):
                    self._promises.promise(key, manifest.needs)
        except StoreError as error:
            log.debug("the store does not answer for a tag", key=key, error=error)


def _log_disagreement(asked: Content, own: Held | None, answers: list[HolderAnswer]) -> None:
    said = {str(answer.peer.peer_id): str(answer.digest) for answer in answers}
    if own:
        said["this node"] = str(own.digest)
    log.info(
        "holders disagree on a tag: the upstream decides",
        key=asked.key,
        digests=sorted(set(said.values())),
        holders=[f"{who}={digest}" for who, digest in said.items()],
    )
