"""What every Router must do. A test class derives from it and says how to make a mesh."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial

from speil.libp2p.identity import Identity
from speil.routing.base import Router
from speil.testing.eventually import eventually

DIGEST, IMAGE = "sha256:" + "cd" * 32, "reg.test/app:1"


class RouterConformance:
    """Derive, and implement `mesh`."""

    def mesh(self, size: int, *zones: str) -> AbstractAsyncContextManager[list[Router]]:
        """Running routers that reach each other; the first ones in `zones`, the others in none."""
        raise NotImplementedError

    async def _found(self, router: Router, key: str) -> set[str]:
        return {str(peer.peer_id) async for peer in router.find_providers(key, timeout_seconds=2)}

    async def test_what_one_provides_all_others_find_and_it_does_not_find_itself(self) -> None:
        async with self.mesh(4) as routers:
            await routers[1].provide([DIGEST, IMAGE])
            for router in (routers[0], *routers[2:]):
                for key in (DIGEST, IMAGE):
                    await eventually(partial(self._is, router, key, {routers[1]}), what="the provider is found")
            assert await self._found(routers[1], DIGEST) == set()

    async def test_all_providers_of_a_key_are_found_each_once(self) -> None:
        async with self.mesh(4) as routers:
            for router in routers[1:]:
                await router.provide([DIGEST])
            await eventually(lambda: self._is(routers[0], DIGEST, set(routers[1:])), what="all are found")
            seen = [peer.peer_id async for peer in routers[0].find_providers(DIGEST, timeout_seconds=2)]
            assert len(seen) == len(set(seen))

    async def test_what_is_known_is_found_too_and_a_provider_does_not_know_itself(self) -> None:
        async with self.mesh(4) as routers:
            await routers[1].provide([DIGEST])
            for router in routers:
                if router is not routers[1]:
                    await eventually(partial(self._is, router, DIGEST, {routers[1]}), what="the provider is found")
            known = [{str(peer.peer_id) for peer in router.known_providers(DIGEST)} for router in routers]
            assert known[1] == set()
            for router, peers in zip(routers, known, strict=True):
                assert peers <= await self._found(router, DIGEST)
            assert any(known)

    async def test_a_provider_can_be_reached_at_the_address_that_it_announced(self) -> None:
        async with self.mesh(2) as routers:
            await routers[1].provide([DIGEST])
            await eventually(lambda: self._is(routers[0], DIGEST, {routers[1]}), what="it is found")
            (peer,) = [one async for one in routers[0].find_providers(DIGEST, timeout_seconds=2)]
            assert set(peer.addresses) & set(routers[1].local.addresses)

    async def test_what_nobody_provides_is_not_found_and_the_search_ends(self) -> None:
        async with self.mesh(3) as routers:
            assert await self._found(routers[0], "sha256:" + "00" * 32) == set()

    async def test_all_are_ready_and_know_each_other(self) -> None:
        async with self.mesh(3) as routers:
            for router in routers:
                await eventually(partial(_is_ready, router), what="ready")
                await eventually(partial(_knows, router, 2), what="it has both others as peers")

    async def test_the_zone_that_a_peer_states_is_known_and_none_where_it_states_none(self) -> None:
        async with self.mesh(3, "a", "b") as routers:
            for router in routers:
                for other, zone in zip(routers, ("a", "b", ""), strict=True):
                    if other is not router:
                        await eventually(partial(_places, router, other, zone), what="the zone is known")
            assert routers[0].zone_of(Identity.generate().peer_id) == ""

    async def test_alone_is_ready(self) -> None:
        async with self.mesh(1) as (router,):
            await eventually(lambda: router.ready, what="ready")
            await router.provide([DIGEST])
            assert await self._found(router, DIGEST) == set()

    async def _is(self, router: Router, key: str, wanted: set[Router]) -> bool:
        assert await self._found(router, key) == {str(one.local.peer_id) for one in wanted}
        return True


def _is_ready(router: Router) -> bool:
    return router.ready


def _places(router: Router, other: Router, zone: str) -> bool:
    return router.zone_of(other.local.peer_id) == zone


def _knows(router: Router, count: int) -> bool:
    return len(router.peers()) == count
