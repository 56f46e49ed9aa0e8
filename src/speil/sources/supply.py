"""Can the content behind a tag be supplied, from this node's store and from peers together?

It goes down from a tag's manifest as containerd does: to the image for one of this node's platforms. Either a holder
said that it has all of that image, or each of its blobs is in the store or held by a peer that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from speil.oci import platform as platforms
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.oci.platform import Platform, PlatformImage
from speil.sources.peers import Peers
from speil.store.base import ContentStore, StoreError
from speil.store.walk import parsed, read_manifest
from speil.store.whole import CONFIG_BYTES_MAX, NESTED_MAX, Wholeness

SUPPLY_AT_ONCE_MAX = 8  # blobs asked for at the same time

Loaded = tuple[bytes, Manifest]
Claimed = dict[Digest, PlatformImage]  # images that a holder says it has whole, by the digest of their manifest


class ConfigMissingError(Exception):
    """The platform of a manifest that stands alone is unknown: nobody has its config."""


class Supply:
    """For one node; `platforms` are those that its containerd pulls."""

    def __init__(self, store: ContentStore, peers: Peers, whole: Wholeness, node: tuple[Platform, ...]) -> None:
        self._store, self._peers, self._whole, self._node = store, peers, whole, node

    async def is_here(self, asked: Content, digest: Digest, loaded: Loaded, claimed: Claimed) -> bool:
        """Whether the images that this node's store holds whole (`claimed`) are those its containerd would come for.

        Raises StoreUnavailableError.
        """
        for node in self._node:
            if await self._choose(asked, digest, loaded, node, claimed, local=True) is not True:
                return False
        return True

    async def can_be_had(self, asked: Content, digest: Digest, loaded: Loaded, claimed: Claimed) -> bool:
        """Whether the image for each of this node's platforms can be had. Raises ConfigMissingError."""
        for node in self._node:
            chosen = await self._choose(asked, digest, loaded, node, claimed, local=False)
            if chosen is True:
                continue
            if chosen is False or not await self._all_held(asked, chosen.needs):
                return False
        return True

    async def manifest(self, asked: Content, digest: Digest) -> Loaded | None:
        """A manifest, from the store or from a peer; None where nobody has it."""
        if loaded := await self._own_manifest(digest):
            return loaded
        content = Content("manifests", asked.registry, asked.name, digest)
        data = await self._peers.fetch(content, MANIFEST_BYTES_MAX)
        manifest = await parsed(data) if data is not None else None
        return (data, manifest) if data is not None and manifest is not None else None

    async def _choose(
        self, asked: Content, digest: Digest, loaded: Loaded, node: Platform, claimed: Claimed, *, local: bool
    ) -> Manifest | bool:
        """The image for a platform: True where a holder has all of it, else its manifest.

        The content that the manifest names is not checked yet. False: the platform is not in it, or a manifest on the
        way can't be had.
        """
        below = False
        for _ in range(NESTED_MAX):
            manifest = loaded[1]
            if not manifest.is_index:
                if (image := claimed.get(digest)) and (below or _runs(node, image.platform)):
                    return True
                if local or not (below or _runs(node, await self._platform(asked, manifest))):
                    return False
                return manifest
            if (entry := platforms.best(manifest.entries, node)) is None:
                return False
            if entry.manifest in claimed:
                return True
            find = self._own_manifest(entry.manifest) if local else self.manifest(asked, entry.manifest)
            if (following := await find) is None:
                return False
            digest, loaded, below = entry.manifest, following, True
        return False

    async def _all_held(self, asked: Content, digests: Iterable[Digest]) -> bool:
        """Whether each of these is in the store, or a peer says that it has it."""
        missing = [digest for digest in digests if not await self._is_stored(digest)]
        places = asyncio.Semaphore(SUPPLY_AT_ONCE_MAX)
        all_held = True
        async with asyncio.TaskGroup() as group:

            async def ask(digest: Digest) -> None:
                nonlocal all_held
                async with places:
                    if all_held and not await self._peers.has(Content("blobs", asked.registry, asked.name, digest)):
                        all_held = False
                        for task in tasks:
                            task.cancel()

            tasks = [group.create_task(ask(digest)) for digest in missing]
        return all_held

    async def _is_stored(self, digest: Digest) -> bool:
        try:
            await self._store.size(digest)
        except StoreError:
            return False
        return True

    async def _platform(self, asked: Content, manifest: Manifest) -> Platform | None:
        """The platform of a manifest that stands alone: its config states it. Raises ConfigMissingError."""
        if manifest.config is None:
            return None
        if await self._is_stored(manifest.config):
            return await self._whole.platform(manifest)
        content = Content("blobs", asked.registry, asked.name, manifest.config)
        if (data := await self._peers.fetch(content, CONFIG_BYTES_MAX)) is None:
            raise ConfigMissingError
        return platforms.platform_of_config(data)

    async def _own_manifest(self, digest: Digest) -> Loaded | None:
        try:
            return await read_manifest(self._store, digest)
        except (StoreError, OSError):
            return None


def _runs(node: Platform, platform: Platform | None) -> bool:
    return platform is None or platform in node.runs
