"""What a node does not carry: libraries of other commands, and what its start left behind."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys

import pytest

from speil import heap
from speil.testing.eventually import eventually

OF_OTHER_COMMANDS = (
    "yaml",
    "multiprocessing",
    "concurrent.futures.process",
    "unittest",
    "xml",
    "sqlite3",
    "prometheus_client.parser",
    "speil.survey",
    "speil.demo",
    "speil.doctor",
    "speil.host_config",
    "speil.testing",
)
HELD_BLOCKS, BLOCK_BYTES = 1_000, 60_000  # blocks that malloc takes from its heap, not from mmap


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_node_loads_nothing_that_only_other_commands_need() -> None:
    """Each of them would cost every node of every cluster its memory."""
    loaded = run("import sys, speil.cli.registry, speil.daemon; print(*sys.modules)").split()
    assert "speil.daemon" in loaded
    assert [name for name in OF_OTHER_COMMANDS if name in loaded] == []


def test_what_needs_most_room_to_load_is_loaded_first() -> None:
    """Loaded last, the room it needs in passing would come on top; see docs/decisions.md."""
    loaded = run("import sys, speil.cli.registry, speil.daemon; print(*sys.modules)").split()  # in order of loading
    assert loaded.index("grpclib.client") < min(map(loaded.index, ("cryptography", "speil.mirror.server")))


def test_settling_gives_the_free_pages_of_the_heap_back() -> None:
    """Blocks at the end of the heap that stay must not keep those before them."""
    code = f"""
from speil import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [b"x" * {BLOCK_BYTES} for _ in range({HELD_BLOCKS})]
stays = bytes(range(256)) * 200
blocks.clear()
before = resident()
heap.freeze_and_trim()
print(before - resident())
"""
    assert int(run(code)) > HELD_BLOCKS * BLOCK_BYTES // 2


AFTER_A_FLOOD = """
import asyncio
from speil import heap
from speil.testing.eventually import eventually
heap.LOOK_SECONDS = 0.05
async def flood():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(heap.trim_when_grown())
        await asyncio.sleep(0)
        before = heap.resident_bytes()
        blocks = [bytearray({size}) for _ in range({count})]
        kept = blocks[::50]
        del blocks
        held = heap.resident_bytes()
        await eventually(lambda: heap.resident_bytes() < before + {count} * {size} // 4)
        print(before, held)
        task.cancel()
asyncio.run(flood())
"""


def test_what_a_flood_took_is_given_back() -> None:
    """The other process fails where it is not."""
    before, held = map(int, run(AFTER_A_FLOOD.format(size=BLOCK_BYTES, count=HELD_BLOCKS)).split())
    assert held > before + HELD_BLOCKS * BLOCK_BYTES // 2, "the C library keeps it by itself"


async def test_no_descriptor_left_ends_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = trims = 0
    monkeypatch.setattr(heap, "LOOK_SECONDS", 0.0)

    def size() -> int:
        nonlocal looks
        looks += 1
        if looks % 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return looks * heap.GROWN_BYTES

    def trim() -> None:
        nonlocal trims
        trims += 1

    monkeypatch.setattr(heap, "resident_bytes", size)
    monkeypatch.setattr(heap, "_trim", trim)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(heap.trim_when_grown())
        await eventually(lambda: looks >= 10, what="it looks again")
        task.cancel()
    assert trims >= 2


MIB = 1 << 20
# The pause between collections, in seconds. The sizes that are read in turn, in MiB: the last stays. Collections and
# trims, by how many sizes were read before.
LOOKS = {
    "what is in use is collected once": (0.0, [40, 60, 58, 58, 59, 57, 58], {2}, {2, 4, 5, 6, 7}),
    "a look in the middle of a flood": (0.0, [40, 100, 95, 90, 41], {2}, {2, 4}),
    "it grows again": (0.0, [40, 60, 58, 62, 61, 61], {2, 4}, {2, 4, 6}),
    "it shrinks by itself, then grows": (0.0, [40, 60, 58, 40, 41, 44, 41], {2, 6}, {2, 6}),
    "it is trimmed and used again": (60.0, [40, 60, 58, 58, 50, 58, 50, 58, 40], {2}, {2, 4, 5, 6, 7, 8}),
}


@pytest.mark.parametrize("name", LOOKS)
async def test_when_memory_is_collected_and_given_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection blocks the event loop: it must not come every few seconds where the first one freed nothing."""
    pause_seconds, sizes, collected, trimmed = LOOKS[name]
    collections, trims = set[int](), set[int]()
    looks = 0

    def size() -> int:
        nonlocal looks
        looks += 1
        return sizes[min(looks, len(sizes)) - 1] * MIB

    monkeypatch.setattr(heap, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(heap, "PAUSE_SECONDS", pause_seconds)
    monkeypatch.setattr(heap, "resident_bytes", size)
    monkeypatch.setattr(heap, "_trim", lambda: trims.add(looks))
    monkeypatch.setattr("gc.collect", lambda: collections.add(looks))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(heap.trim_when_grown())
        await eventually(lambda: looks >= 20, what="it looks")
        task.cancel()
    assert collections == collected
    assert {at for at in trims if at <= len(sizes)} == trimmed
