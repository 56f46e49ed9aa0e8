"""Puts the sources of a node together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from speil.observe.metrics import Metrics
from speil.oci.platform import Platform
from speil.routing.base import Router
from speil.sources.own_store import OwnStore
from speil.sources.peer_access import PeerAccess, PeerConfig
from speil.sources.peer_client import PeerClient
from speil.sources.peer_knowledge import PeerKnowledge
from speil.sources.peers import Peers
from speil.sources.series import SourcesSeries
from speil.sources.settle import Settling
from speil.sources.tags import HeldTags, Tags
from speil.store.base import ContentStore
from speil.store.sharing import Sharing
from speil.store.whole import Wholeness


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources, and what they share. `settling` is to be run, and reads the store's news."""

    own: OwnStore
    peers: Peers
    held_tags: HeldTags
    tags: Tags
    access: PeerAccess
    knowledge: PeerKnowledge
    settling: Settling


def open_sources(
    store: ContentStore,
    sharing: Sharing,
    router: Router,
    client: PeerClient,
    config: PeerConfig,
    metrics: Metrics,
    *,
    node_platforms: Iterable[Platform],
    peers_prove_themselves: Callable[[], bool],
) -> Sources:
    """The caller owns and closes the client. The last two are explained at `Tags`."""
    series, whole = metrics.of(SourcesSeries), Wholeness(store)
    knowledge = PeerKnowledge(config.fetch.verify_memory_max, series, router.zone_of)
    access = PeerAccess(router, client, knowledge, config, series)
    own, peers = OwnStore(store, sharing), Peers(access)
    held_tags = HeldTags(store, own, sharing, whole)
    tags = Tags(store, held_tags, access, peers, whole, node_platforms, peers_prove_themselves=peers_prove_themselves)
    return Sources(own, peers, held_tags, tags, access, knowledge, Settling(store, knowledge, series))
