"""Images of a registry that asks for a login: with the pull secret no pull fails, and peers serve what they have.

Without the secret a pull fails with speil as it does without. Only the words of containerd 2 differ: of the hosts that
it asked it reports a 404 rather than a refused login, and speil answers 404 for what no peer has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from speil.store.base import StoreError
from speil.testing.images import random_image
from tests.system.conftest import Lab, started_lab
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.node import REGISTRY
from tests.system.lab.registry import LOGIN
from tests.system.test_pulls import announced, wanted

pytestmark = pytest.mark.system
LAYERS = (300_000, 70_000, 40_000, 500)
IMAGES = 4


@pytest.fixture
async def private(version: ContainerdVersion) -> AsyncIterator[Lab]:
    """The lab of tests/system with a private registry."""
    async with started_lab(version, private=True) as lab:
        yield lab


async def test_with_its_secret_no_pull_fails_and_without_it_speil_changes_nothing(private: Lab) -> None:
    first, *others = private.nodes
    # whatever the peers have at that moment: nothing, a part of the image, or all of it
    for number in range(IMAGES):
        name, image = f"lab/private-{number}", random_image(number, LAYERS)
        private.registry.push(image, name, "1")
        await asyncio.gather(*(node.pull(f"{name}:1", LOGIN) for node in (first, others[number % 2])))
        await others[(number + 1) % 2].pull(f"{name}:1", LOGIN)

    image = random_image(IMAGES, LAYERS)
    private.registry.push(image, "lab/private", "1")
    await first.pull("lab/private:1", LOGIN)
    await announced(first, others, wanted(image))
    private.registry.forget()
    await asyncio.gather(*(node.pull("lab/private:1", LOGIN) for node in others))
    assert not private.registry.gets(), "the others find everything at a peer"

    private.registry.push(random_image(IMAGES + 1, LAYERS), "lab/secret", "1")
    is_reported = "401|authorization"
    with pytest.raises(StoreError, match=is_reported if first.containerd.version.major == 1 else "not found"):
        await first.pull("lab/secret:1")
    hosts = first.containerd.certs / REGISTRY / "hosts.toml"
    written = hosts.read_text()
    hosts.write_text(f'server = "{private.registry.url}"\n[host."{private.registry.url}"]\n')
    with pytest.raises(StoreError, match=is_reported):
        await first.pull("lab/secret:1")
    hosts.write_text(written)
    await first.pull("lab/secret:1", LOGIN)
