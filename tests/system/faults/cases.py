"""What goes wrong. Each case is one row of the table."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speil.testing.eventually import eventually
from tests.system.faults.bad_disk import put_on_bad_disk
from tests.system.faults.lab import MODES
from tests.system.faults.trial import Case, Trial
from tests.system.lab.networks import Rule
from tests.system.lab.node import REGISTRY
from tests.system.lab.processes import LabProcess

LIE_SECONDS_MAX = 60.0
ROUTER_PORT = 5001
STALE_RECORDS = 50
CRAWL = "80kbit"  # 10 kB/s
DATA_DIR_BYTES = 64 << 10

# --- the serving node -------------------------------------------------------------------------------------


async def kill_speil(trial: Trial) -> None:
    """SIGKILL: the kernel closes its connections."""
    trial.serving.speil.kill()


async def kill_both(trial: Trial) -> None:
    """speil and the containerd whose content it serves."""
    trial.serving.speil.kill()
    trial.serving.containerd.process.kill()


async def drop_packets(trial: Trial) -> None:
    """A node without power, or behind a broken switch: nobody says that it is gone."""
    address = trial.serving.address
    trial.lab.rule(Rule(source=address, loss=1.0), Rule(target=address, loss=1.0))


async def freeze(trial: Trial) -> None:
    """SIGSTOP: the kernel still takes connections and requests."""
    trial.serving.freeze()


async def crawl(trial: Trial) -> None:
    """10 kB/s."""
    trial.serving.limit_rate(CRAWL)


async def remove_content(trial: Trial) -> None:
    """The kubelet's image GC: containerd unlinks the files."""
    await trial.serving.containerd.remove(f"{REGISTRY}/{trial.name}")
    await eventually(
        lambda: not trial.digests & trial.serving.containerd.blobs(), timeout_seconds=30, what="containerd collects"
    )


async def fail_disk(trial: Trial) -> None:
    """Read errors in the layers."""
    blobs = trial.serving.containerd.directory / "root/io.containerd.content.v1.content/blobs/sha256"
    layers = [digest for digest, data in trial.image.blobs.items() if len(data) > 1_000_000]
    folder = trial.lab.folder / trial.image.index.digest.hex[:8]
    folder.mkdir()
    put_on_bad_disk(trial.serving, [blobs / digest.hex for digest in layers], folder)


async def restart_its_containerd(trial: Trial) -> None:
    """speil goes on from the files."""
    trial.serving.containerd.process.kill()
    await trial.serving.containerd.start()


async def take_its_descriptors(trial: Trial) -> None:
    """The holder can't open a connection or a file."""
    trial.serving.take_descriptors()


# --- the network ------------------------------------------------------------------------------------------


async def lose_packets(trial: Trial) -> None:
    """5 % each way."""
    address = trial.serving.address
    trial.lab.rule(Rule(source=address, loss=0.05), Rule(target=address, loss=0.05))


async def delay_packets(trial: Trial) -> None:
    """What the holder sends takes 200 ms."""
    trial.lab.rule(Rule(source=trial.serving.address, delay_seconds=0.2))


async def partition(trial: Trial) -> None:
    """The mesh falls apart before the image is announced; the registry ports still reach each other."""
    trial.lab.rule(Rule(port=ROUTER_PORT, loss=1.0))
    await trial.serving.pull(trial.name)


# --- peers that lie ---------------------------------------------------------------------------------------


async def lie(trial: Trial, answers: str, announce: Sequence[str]) -> None:
    """Somebody in the mesh says that it has the image."""
    lab = trial.lab
    digests = [digest for digest in trial.image.blobs if str(digest) in trial.digests]
    blobs = {str(digest): (len(trial.image.blobs[digest]), trial.image.media_types[digest]) for digest in digests}
    plan: dict[str, Any] = {
        "nodes": [{"address": lab.puller.address, "peer_id": lab.puller.peer_id}],
        "keys": list(blobs),
        "announce": list(announce),
        "answers": answers,
        "blobs": blobs,
        "content": str(lab.registry.pushed),
    }
    file, log = lab.folder / "plan.json", lab.folder / f"liar-{trial.image.index.digest.hex[:8]}.log"
    file.write_text(json.dumps(plan))
    liar = LabProcess(lab.stranger, [sys.executable, "-m", "tests.system.faults.liar", str(file)], log)
    trial.processes.append(liar)
    liar.start()

    def announced() -> bool:
        assert liar.running, liar.log_text()
        return "announced" in liar.log_text()

    await eventually(announced, timeout_seconds=LIE_SECONDS_MAX, what="the lie is announced")


async def has_nothing(trial: Trial) -> None:
    """404 to everything."""
    await lie(trial, "404", [trial.lab.stranger.address])


async def says_nothing(trial: Trial) -> None:
    """Connections are taken, requests are not answered."""
    await lie(trial, "silence", [trial.lab.stranger.address])


async def sends_garbage(trial: Trial) -> None:
    """The right length, the right headers, other bytes."""
    await lie(trial, "garbage", [trial.lab.stranger.address])


async def sends_garbage_first(trial: Trial) -> None:
    """Wrong bytes of somebody who answers faster than an honest holder."""
    await delay_packets(trial)
    await sends_garbage(trial)


async def sends_garbage_where_it_can(trial: Trial) -> None:
    """What is verified before it is passed on is right; layers that are too large for that are not."""
    await lie(trial, "large garbage", [trial.lab.stranger.address])


async def is_stale(trial: Trial) -> None:
    """50 nodes that are gone: half of them with their address, half with a host that refuses."""
    nowhere = [f"10.82.2.{number}" for number in range(100, 100 + STALE_RECORDS // 2)]
    await lie(trial, "nothing", [*nowhere, *[trial.lab.stranger.address] * (STALE_RECORDS - len(nowhere))])


# --- the node that pulls ----------------------------------------------------------------------------------


async def restart_own_speil(trial: Trial) -> None:
    """As a DaemonSet's roll-out does."""
    await trial.puller.restart_speil()


async def kill_own_speil(trial: Trial) -> None:
    """As the OOM killer does; the kubelet starts it again."""
    trial.puller.speil.kill()
    await trial.puller.start_speil()


async def restart_own_containerd(trial: Trial) -> None:
    """The pull itself is lost; the next one goes on."""
    trial.puller.containerd.process.kill()
    await trial.puller.containerd.start()


async def take_own_descriptors(trial: Trial) -> None:
    """speil can take no connection, and make none."""
    trial.puller.take_descriptors()


async def fill_data_dir(trial: Trial) -> None:
    """A new node whose data directory is full."""
    await asyncio.to_thread(trial.puller.speil.stop)
    with full_directory(trial.puller.directory / "data"):
        await trial.puller.start_speil()
    trial.puller.is_dirty = True
    await eventually(lambda: trial.puller.has_met(trial.serving), timeout_seconds=30, what="it has joined the mesh")
    await eventually(
        lambda: all(
            trial.puller.head(f"/v2/{trial.name.partition(':')[0]}/{trial.image.kind(digest)}/{digest}?ns={REGISTRY}")
            == 200
            for digest in trial.image.blobs
            if str(digest) in trial.digests
        ),
        timeout_seconds=30,
        what="it finds the image",
    )


@contextmanager
def full_directory(path: Path) -> Iterator[None]:
    """Processes started meanwhile have an own disk at `path`, full, for as long as they run."""
    shutil.rmtree(path)
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DATA_DIR_BYTES}", "tmpfs", str(path)]
    subprocess.run(mount, check=True, capture_output=True, timeout=30)
    try:
        (path / "of somebody else").write_bytes(bytes(DATA_DIR_BYTES))
        yield
    finally:
        # theirs stays, in their mount namespace
        subprocess.run(["umount", str(path)], check=True, capture_output=True, timeout=30)


DISK = "the disk failed|the store failed"
# where containerds differ most: bodies that end early, content that is wrong, requests that nobody takes
ALL = tuple(mode.key for mode in MODES)
OLD = ("containerd-1.6",)
BROKE = "a peer broke off"
BANNED = "a peer sent wrong bytes: banned"
SUSPECT = "content that was delivered is not in the store"
CASES = (
    Case("serving speil killed", BROKE, during=kill_speil, in_ci=ALL),
    Case("serving speil killed, another holder", BROKE, during=kill_speil, holders=2),
    Case("serving speil and containerd killed", BROKE, during=kill_both),
    Case("serving node gone, packets dropped", BROKE, during=drop_packets, in_ci=ALL),
    Case("serving node gone, another holder", BROKE, during=drop_packets, holders=2, in_ci=OLD),
    Case("serving speil frozen", BROKE, during=freeze),
    Case("serving speil frozen, another holder", BROKE, during=freeze, holders=2, in_ci=OLD),
    Case("slowed to 10 kB/s", BROKE, during=crawl, in_ci=OLD),
    Case("slowed to 10 kB/s, another holder", BROKE, during=crawl, holders=2),
    Case("link loses 5 %", "asked by the node .*source=peer", before=lose_packets),
    Case("link delayed by 200 ms", "asked by the node .*source=peer", before=delay_packets, in_ci=OLD),
    Case("content garbage-collected", "asked by the node .*(failed|no peer)", during=remove_content, in_ci=OLD),
    Case(
        "disk read error",
        DISK,
        before=fail_disk,
        logged_by="holder",
        needs=("loop-device",),
        in_ci=ALL,
    ),
    Case("its containerd restarted", "containerd is away", during=restart_its_containerd, logged_by="holder"),
    Case(
        "its file descriptors exhausted",
        "no file descriptor is left",
        logged_by="holder",
        before=take_its_descriptors,
        in_ci=OLD,
    ),
    Case("peer lies: 404", "asked by the node .*all requests to peers failed", before=has_nothing, holders=0),
    Case("peer lies: silence", "asked by the node .*no answer", before=says_nothing, holders=0, in_ci=OLD),
    Case("peer sends wrong bytes", BANNED, before=sends_garbage, holders=0, in_ci=OLD),
    Case("peer sends wrong bytes, the holder is slower", BANNED, before=sends_garbage_first, in_ci=ALL),
    Case(
        "wrong bytes in large layers alone",
        SUSPECT,
        before=sends_garbage_where_it_can,
        holders=0,
        pulls_max=2,
        in_ci=ALL,
    ),
    Case("50 stale records, one holder", "asked by the node .*no answer", before=is_stale),
    Case("50 stale records, no holder", "asked by the node .*no answer", before=is_stale, holders=0, in_ci=OLD),
    Case("DHT partitioned", "asked by the node .*no peer found", before=partition, holders=0, in_ci=OLD),
    Case("own speil restarted", "stopping", during=restart_own_speil, counters_survive=False, in_ci=ALL),
    Case("own speil killed", "started", during=kill_own_speil, counters_survive=False, in_ci=OLD),
    Case("own containerd restarted", "containerd is away", during=restart_own_containerd, pulls_max=2, in_ci=OLD),
    Case(
        "own file descriptors exhausted",
        "no file descriptor is left",
        before=take_own_descriptors,
        in_ci=(*OLD, "containerd-2"),
    ),
    Case("disk full on the data dir", "No space left", before=fill_data_dir),
)
CLEAN = Case("no fault", "asked by the node .*source=peer")
CLEAN_SLOW = Case("no fault, slow link", "asked by the node .*source=peer", during=lambda trial: asyncio.sleep(0))
