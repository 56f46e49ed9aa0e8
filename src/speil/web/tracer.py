"""Traces an image on this node: which parts are here, which peers have the others, and how fast those send them.

It asks as containerd's requests do: the tag, the manifests down to this node's platform, then the config and the
layers. Nothing is stored. A measuring pull takes a bounded part of each content from peers and drops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from speil.mirror.asked import Parser
from speil.oci import media_type
from speil.oci import platform as platforms
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.manifest import Descriptor, Manifest
from speil.oci.platform import Platform
from speil.oci.reference import Reference
from speil.sources.base import ContentRequest, Origin
from speil.sources.build import Sources
from speil.sources.tags import this_machine
from speil.store.base import ContentStore, NotFoundError, StoreError
from speil.store.walk import read_manifest
from speil.trace.found import Kind, Part, TagFound, Trace
from speil.web.probe import Probe

TRACE_SECONDS_MAX = 30.0  # of a whole trace; a page or a command waits for it
PARTS_MAX = 200  # of one image; the largest public images have some hundred layers
NESTED_MAX = 8  # levels of indexes; images have at most two
PROBES_AT_ONCE = 4  # without measuring; a measuring pull has the node's bandwidth for itself
MEASURED_BYTES_MAX = 256 << 20  # of one trace
_ANY = Digest.parse(f"sha256:{0:064x}")


class Tracer:
    """Traces on one node, whose registry port has `sources` and `parser`."""

    def __init__(
        self, sources: Sources, store: ContentStore, parser: Parser, probe: Probe, node: Iterable[Platform] = ()
    ) -> None:
        """`node`: the platforms that this node's containerd pulls, the first one counts; none: this machine's."""
        self._sources, self._store, self._parser, self._probe = sources, store, parser, probe
        self._platform = next(iter(node), None) or this_machine()

    async def trace(self, reference: Reference, *, measure: bool = False, platform: Platform | None = None) -> Trace:
        """Trace an image, for `platform` (None: this node's). It takes TRACE_SECONDS_MAX at most, and never fails."""
        walk = _Walk(self._sources, self._store, self._parser, self._probe, reference, platform or self._platform)
        started = _now()
        try:
            async with asyncio.timeout(TRACE_SECONDS_MAX):
                await walk.run(measure=measure)
        except TimeoutError:
            walk.note = f"the trace was ended after {TRACE_SECONDS_MAX:g} s"
        return replace(walk.result, seconds=_now() - started)


class _Walk:
    """One trace. `result` is what has been found so far."""

    def __init__(
        self, sources: Sources, store: ContentStore, parser: Parser, probe: Probe, reference: Reference, node: Platform
    ) -> None:
        self._sources, self._store, self._probe, self._reference, self._node = sources, store, probe, reference, node
        self._digest = reference.digest
        self._parser = parser
        # whichever digest it is: the repository decides
        self._refusal = parser.refusal(self._content("blobs", reference.digest or _ANY))
        self._tag: TagFound | None = None
        self._parts: list[Part] = []
        self._measured_bytes = 0
        self._image_here, self._left_out = False, 0
        self.note = ""

    @property
    def result(self) -> Trace:
        return Trace(
            str(self._reference), self._digest, str(self._node), self._tag, tuple(self._parts), self._image_here,
            self._refusal, self.note, self._left_out,
        )  # fmt: skip

    async def run(self, *, measure: bool) -> None:
        own = await self._own_image()
        self._image_here = own is not None
        if self._digest is None:
            await self._resolve(own)
        if self._digest is None:
            return
        manifest = await self._down(self._digest, measure=measure)
        if manifest is not None:
            await self._children(manifest, measure=measure)

    # --- the tag ----------------------------------------------------------------------------------------

    async def _own_image(self) -> Digest | None:
        try:
            return await self._store.resolve(str(self._reference))
        except StoreError:
            return None

    async def _resolve(self, own: Digest | None) -> None:
        """The digest that speil answers for the tag; without one, a digest that would show the parts all the same."""
        started, tag = _now(), self._reference.tag
        assert tag is not None
        request = ContentRequest(self._content("manifests", tag), "HEAD")
        if refusal := self._parser.refusal(request.content):
            self._tag = TagFound("", refusal, 0.0, 0)
        elif (opened := await self._sources.tags.open(request)) is not None:
            async with opened:
                self._digest = opened.digest
                origin = "store" if opened.origin is Origin.STORE else "peer"
                self._tag = TagFound(origin, "", _now() - started, request.notes.attempts)
            return
        else:
            self._tag = TagFound("", request.notes.miss, _now() - started, request.notes.attempts)
        self._digest = own
        if own is not None:
            self.note = "the parts are those of the image in this node's store; the upstream may have moved the tag"
        else:
            self.note = "the tag is resolved upstream, so its parts are not known here: trace it by digest"

    # --- manifests --------------------------------------------------------------------------------------

    async def _down(self, digest: Digest, *, measure: bool) -> Manifest | None:
        """The manifest for the platform, with a part for each manifest on the way."""
        wanted = Descriptor("", digest, 0)
        for _ in range(NESTED_MAX):
            part, manifest = await self._manifest(wanted, measure=measure)
            self._add(part)
            if manifest is None:
                self.note = "a manifest is neither here nor with a peer: what it names is not known"
                return None
            if not manifest.is_index:
                return manifest
            if (entry := platforms.best(manifest.entries, self._node)) is None:
                self.note = f"the image has no manifest for {self._node}"
                return None
            wanted = next(child for child in manifest.children if child.digest == entry.manifest)
        self.note = f"indexes are nested more than {NESTED_MAX} levels deep"
        return None

    async def _manifest(self, wanted: Descriptor, *, measure: bool) -> tuple[Part, Manifest | None]:
        content = self._content("manifests", wanted.digest)
        manifest, size = await self._own_manifest(wanted.digest)
        part = Part(Kind.MANIFEST, wanted.digest, wanted.media_type, wanted.size, held=manifest is not None)
        if not part.held or measure:
            part, from_peer = await self._probe.manifest(part, content, is_served=not self._refusal, measure=measure)
            manifest = manifest or from_peer
        if manifest is not None:
            part = replace(
                part,
                kind=Kind.INDEX if manifest.is_index else Kind.MANIFEST,
                media_type=manifest.type_with_hint(wanted.media_type),
                size_bytes=part.size_bytes or size,
                platform="" if manifest.is_index else str(wanted.platform or ""),
            )
        return part, manifest

    async def _own_manifest(self, digest: Digest) -> tuple[Manifest | None, int]:
        try:
            loaded = await read_manifest(self._store, digest)
        except (StoreError, OSError):
            return None, 0
        return (loaded[1], len(loaded[0])) if loaded else (None, 0)

    # --- config and layers ------------------------------------------------------------------------------

    async def _children(self, manifest: Manifest, *, measure: bool) -> None:
        children = list({child.digest: child for child in manifest.children}.values())
        room = max(PARTS_MAX - len(self._parts), 0)
        self._left_out = len(children[room:]) + manifest.left_off
        parts = [await self._blob(child, manifest.config) for child in children[:room]]
        first = len(self._parts)
        self._parts += parts
        places = asyncio.Semaphore(1 if measure else PROBES_AT_ONCE)

        async def look(number: int) -> None:
            async with places:
                self._parts[first + number] = await self._look(parts[number], measure=measure)

        async with asyncio.TaskGroup() as group:
            for number in range(len(parts)):
                group.create_task(look(number))

    async def _blob(self, child: Descriptor, config: Digest | None) -> Part:
        kind = Kind.CONFIG if child.digest == config else Kind.LAYER
        try:
            size, held = await self._store.size(child.digest), True
        except NotFoundError:
            size, held = child.size, False
        except StoreError as error:
            size, held = child.size, False
            self.note = f"this node's store does not answer: {error}"
        foreign = media_type.is_foreign(child.media_type)
        return Part(kind, child.digest, child.media_type, size, held=held, is_foreign=foreign)

    async def _look(self, part: Part, *, measure: bool) -> Part:
        if part.is_foreign or (part.held and not measure):
            return part
        content = self._content("blobs", part.digest)
        is_measured = measure and self._measured_bytes < MEASURED_BYTES_MAX
        part = await self._probe.blob(part, content, is_served=not self._refusal, measure=is_measured)
        if part.measured is not None:
            self._measured_bytes += part.measured.size_bytes
        return part

    # --- small ------------------------------------------------------------------------------------------

    def _content(self, kind: str, reference: Digest | str) -> Content:
        return Content(kind, self._reference.registry, self._reference.name, reference)

    def _add(self, part: Part) -> None:
        if len(self._parts) < PARTS_MAX:
            self._parts.append(part)


def _now() -> float:
    return asyncio.get_running_loop().time()
