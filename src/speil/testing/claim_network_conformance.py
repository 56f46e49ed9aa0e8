"""What every ClaimNetwork must do. A test class derives from it and says how to make a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from speil.claims.message import (
    Answer,
    Ask,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Status,
)
from speil.kad.key import position
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_info import PeerInfo
from speil.routing.claim_network import ClaimNetwork
from speil.routing.network import NetworkError
from speil.testing.eventually import eventually

NAME = "sha256:" + "ab" * 32
KEY = content_key(NAME)
MISS = Ask()


class ClaimMeshUnderTest(Protocol):
    """Running nodes that know each other and are attached."""

    @property
    def nodes(self) -> Sequence[ClaimNetwork]:
        """The nodes."""

    @property
    def statuses(self) -> dict[bytes, Status]:
        """What all nodes answer to AskStatus, by key."""

    async def provide(self, node: ClaimNetwork, name: str) -> None:
        """`node` announces content."""

    def knows_holder(self, node: ClaimNetwork, holder: ClaimNetwork, name: str) -> bool:
        """Whether `node` has the provider record of `holder`."""

    async def kill(self, node: ClaimNetwork) -> None:
        """`node` is gone without a goodbye."""


@dataclass(slots=True)
class Statuses:
    """The answers of all nodes of a mesh to AskStatus, by key."""

    known: dict[bytes, Status] = field(default_factory=dict)

    def of(self, key: bytes) -> Status:
        """For `ClaimNetwork.attach`."""
        return self.known.get(key, Status(Phase.NONE))


def by_distance(nodes: Sequence[ClaimNetwork], key: bytes = KEY) -> list[ClaimNetwork]:
    """The nodes, the one closest to the key first."""
    return sorted(nodes, key=lambda node: position(node.local.peer_id.multihash) ^ position(key))


class ClaimNetworkConformance:
    """Derive, and implement `mesh`."""

    def mesh(self, size: int, *zones: str) -> AbstractAsyncContextManager[ClaimMeshUnderTest]:
        """A mesh of up to 20 nodes; the first ones in `zones`, the others in none."""
        raise NotImplementedError

    async def test_all_nodes_agree_on_who_is_closest_with_themselves_in_their_place(self) -> None:
        async with self.mesh(4) as mesh:
            wanted = [node.local.peer_id for node in by_distance(mesh.nodes)]
            for node in mesh.nodes:
                assert [peer.peer_id for peer in node.closest(KEY)] == wanted

    async def test_the_first_asker_fetches_and_the_next_ones_follow_it(self) -> None:
        async with self.mesh(4) as mesh:
            umpire, *askers = by_distance(mesh.nodes)
            assert await askers[0].ask(umpire.local, KEY, MISS) == Fetch()
            for asker in askers[1:]:
                source = _source(await asker.ask(umpire.local, KEY, MISS))
                assert source.peer_id == askers[0].local.peer_id
                assert set(source.addresses) & set(askers[0].local.addresses)

    async def test_a_node_asks_its_own_umpire(self) -> None:
        async with self.mesh(3) as mesh:
            umpire, other, _ = by_distance(mesh.nodes)
            assert await umpire.ask(umpire.local, KEY, MISS) == Fetch()
            assert _source(await other.ask(umpire.local, KEY, MISS)).peer_id == umpire.local.peer_id

    async def test_a_node_that_is_not_the_closest_names_a_closer_one_also_to_itself(self) -> None:
        async with self.mesh(3) as mesh:
            closest, next_closest, other = by_distance(mesh.nodes)
            for asker in (next_closest, other):
                answer = await asker.ask(next_closest.local, KEY, MISS)
                assert isinstance(answer, Defer)
                assert answer.closer.peer_id == closest.local.peer_id
                assert await asker.ask(answer.closer, KEY, MISS) is not None

    async def test_the_source_says_how_far_it_is(self) -> None:
        async with self.mesh(2) as mesh:
            mesh.statuses[KEY] = Status(Phase.FOLLOWING, 12_345, (1, 2**63))
            first, second = mesh.nodes
            assert await first.ask_status(second.local, KEY) == Status(Phase.FOLLOWING, 12_345, (1, 2**63))
            assert await first.ask_status(second.local, content_key("other")) == Status(Phase.NONE)

    async def test_a_released_claim_is_granted_to_the_next_asker(self) -> None:
        async with self.mesh(4) as mesh:
            umpire, first, second, third = by_distance(mesh.nodes)
            assert await first.ask(umpire.local, KEY, MISS) == Fetch()
            await first.release(umpire.local, KEY, Release(Ending.CANCELLED))

            async def is_granted() -> bool:
                answer = await second.ask(umpire.local, KEY, Ask(Reason.GONE, first.local.peer_id))
                return answer == Fetch()

            await eventually(is_granted, what="the second fetches")
            assert _source(await third.ask(umpire.local, KEY, MISS)).peer_id == second.local.peer_id

    async def test_what_its_own_umpire_granted_a_node_releases_itself(self) -> None:
        async with self.mesh(2) as mesh:
            umpire, other = by_distance(mesh.nodes)
            assert await umpire.ask(umpire.local, KEY, MISS) == Fetch()
            await umpire.release(umpire.local, KEY, Release(Ending.CANCELLED))
            assert await other.ask(umpire.local, KEY, MISS) == Fetch()

    async def test_announced_content_has_holders(self) -> None:
        async with self.mesh(4) as mesh:
            umpire, first, second, third = by_distance(mesh.nodes)
            assert await first.ask(umpire.local, KEY, MISS) == Fetch()
            await mesh.provide(first, NAME)
            await eventually(lambda: _has_holder(second, umpire, first), what="the first is a holder")
            answer = await third.ask(umpire.local, KEY, MISS)
            assert isinstance(answer, Holders)
            assert third.local.peer_id not in {peer.peer_id for peer in answer.peers}

    async def test_holders_that_announced_before_any_claim_are_named(self) -> None:
        async with self.mesh(4) as mesh:
            umpire, first, second, _ = by_distance(mesh.nodes)
            await mesh.provide(first, NAME)
            await eventually(lambda: mesh.knows_holder(umpire, first, NAME), what="the umpire has the record")
            assert await _has_holder(second, umpire, first)

    async def test_a_source_of_the_own_zone_comes_first(self) -> None:
        async with self.mesh(6, "a", "b", "a", "b", "a", "b") as mesh:
            umpire = by_distance(mesh.nodes)[0]
            ours = [node for node in mesh.nodes if node.local.zone == "a"]
            theirs = [node for node in mesh.nodes if node.local.zone == "b"]
            assert await ours[0].ask(umpire.local, KEY, MISS) == Fetch()
            across = _source(await theirs[0].ask(umpire.local, KEY, MISS))
            assert (across.peer_id, across.zone) == (ours[0].local.peer_id, "a")
            inside = _source(await theirs[1].ask(umpire.local, KEY, MISS))
            assert (inside.peer_id, inside.zone) == (theirs[0].local.peer_id, "b")

    async def test_a_peer_that_is_gone_is_an_error_to_who_asks_and_none_to_who_releases(self) -> None:
        async with self.mesh(3) as mesh:
            umpire, other, _ = by_distance(mesh.nodes)
            gone = umpire.local
            await mesh.kill(umpire)
            with pytest.raises(NetworkError):
                await other.ask(gone, KEY, MISS)
            with pytest.raises(NetworkError):
                await other.ask_status(gone, KEY)
            await other.release(gone, KEY, Release(Ending.CANCELLED))

    async def test_a_node_that_is_gone_is_not_among_the_closest(self) -> None:
        async with self.mesh(3) as mesh:
            umpire, next_closest, other = by_distance(mesh.nodes)
            gone = umpire.local.peer_id
            await mesh.kill(umpire)
            await eventually(lambda: gone not in {peer.peer_id for peer in other.closest(KEY)}, what="it is left out")

            async def grants() -> bool:
                return await other.ask(next_closest.local, KEY, MISS) == Fetch()

            await eventually(grants, what="the next closest is the umpire")

    async def test_the_next_closest_knows_who_fetches_when_the_umpire_is_gone(self) -> None:
        async with self.mesh(4) as mesh:
            umpire, next_closest, first, second = by_distance(mesh.nodes)
            assert await first.ask(umpire.local, KEY, MISS) == Fetch()
            await eventually(lambda: self._knows_the_claim(next_closest), what="it was told")
            gone = umpire.local.peer_id
            await mesh.kill(umpire)
            answer = await second.ask(next_closest.local, KEY, Ask(dead=(gone,)))
            assert _source(answer).peer_id == first.local.peer_id

    def _knows_the_claim(self, node: ClaimNetwork) -> bool:
        """Whether the umpire behind `node` has a claim of KEY."""
        raise NotImplementedError


async def _has_holder(asker: ClaimNetwork, umpire: ClaimNetwork, holder: ClaimNetwork) -> bool:
    answer = await asker.ask(umpire.local, KEY, MISS)
    return isinstance(answer, Holders) and holder.local.peer_id in {peer.peer_id for peer in answer.peers}


def _source(answer: Answer) -> PeerInfo:
    assert isinstance(answer, Follow), answer
    return answer.source
