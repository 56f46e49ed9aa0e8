"""What goes wrong while nodes pull at once. Each case is one row of the table."""

from __future__ import annotations

import json
import os
import sys
import time

from speil.testing.eventually import eventually
from tests.interop.peers import peer_program
from tests.requirements import tool_path
from tests.system.faults.at_once.lab import REGION, old_source
from tests.system.faults.at_once.trial import Case, Trial
from tests.system.lab.processes import LabProcess

LIE_SECONDS_MAX = 60.0
SLOW_FIRST_BYTE_SECONDS = 2.0


async def nothing(trial: Trial) -> None:
    """No fault."""


# --- the node that downloads ------------------------------------------------------------------------------


async def kill_speil(trial: Trial) -> None:
    """SIGKILL. Its containerd goes on from the upstream."""
    trial.fetcher.speil.kill()


async def kill_containerd(trial: Trial) -> None:
    """SIGKILL. Its ingest stays."""
    fetcher = trial.fetcher
    trial.lost.add(fetcher)
    fetcher.containerd.process.kill()


async def kill_both(trial: Trial) -> None:
    """speil and its containerd."""
    fetcher = trial.fetcher
    await kill_containerd(trial)
    fetcher.speil.kill()


async def cut_power(trial: Trial) -> None:
    """Nothing of it reaches anybody; nobody says that it is gone."""
    trial.lost.add(trial.fetcher)
    trial.lab.cut_off(trial.fetcher)


async def freeze_speil(trial: Trial) -> None:
    """SIGSTOP: the kernel still takes connections and requests."""
    trial.hit.add(trial.fetcher)
    trial.fetcher.freeze()


async def freeze_containerd(trial: Trial) -> None:
    """SIGSTOP: speil says that it is alive, and no byte comes."""
    trial.hit.add(trial.fetcher)
    trial.fetcher.freeze_containerd()


async def cancel_pull(trial: Trial) -> None:
    """The kubelet gives up."""
    fetcher = trial.fetcher
    trial.lost.add(fetcher)
    ingest = fetcher.ingested[trial.layer.hex]
    cancelled_at = time.monotonic()
    trial.pulls[fetcher].cancel()
    await eventually(lambda: not ingest.exists(), timeout_seconds=10, what="the ingest is gone")
    seconds = time.monotonic() - cancelled_at
    trial.notes.append(f"the ingest was gone after {seconds:.2f} s")


async def restart_containerd(trial: Trial) -> None:
    """The pull is lost; the kubelet's next one goes on from the ingest."""
    fetcher = trial.fetcher
    trial.hit.add(fetcher)
    trial.unready.add(fetcher)
    fetcher.containerd.process.kill()
    size = fetcher.ingested[trial.layer.hex].stat().st_size
    await fetcher.containerd.start()
    trial.unready.clear()
    trial.notes.append(f"containerd restarted with {size} bytes")


async def fill_disk(trial: Trial) -> None:
    """No space for another byte, until its pull has failed."""
    fetcher = trial.fetcher
    trial.hit.add(fetcher)
    trial.unready.add(fetcher)
    fetcher.fill_disk()
    await eventually(lambda: fetcher in trial.failed, timeout_seconds=30, what="its pull has failed")
    fetcher.calm()
    trial.unready.clear()


async def truncate_ingest(trial: Trial, size: int = 0) -> None:
    """Its file loses what came. containerd writes on behind the hole, and commits it: it hashes what it wrote."""
    fetcher = trial.fetcher
    trial.lost.add(fetcher)
    trial.waits_for_collection = True
    os.truncate(fetcher.ingested[trial.layer.hex], size)


async def truncate_ingest_in_its_middle(trial: Trial) -> None:
    """The kernel then sets bytes to zero that are in a socket's queue. containerd truncates to nothing alone."""
    await truncate_ingest(trial, 1000)


# --- its upstream -----------------------------------------------------------------------------------------


async def stall_upstream(trial: Trial) -> None:
    """The downloading node gets no more bytes."""
    trial.hit.add(trial.fetcher)
    trial.upstream.stalled.add(trial.fetcher.address)


async def slow_upstream(trial: Trial) -> None:
    """The downloading node gets 10 kB/s."""
    trial.hit.add(trial.fetcher)
    trial.upstream.crawling.add(trial.fetcher.address)


async def corrupt_upstream(trial: Trial) -> None:
    """Wrong bytes at the end of the largest layer, until each pull has failed."""
    trial.upstream.corrupt.add(trial.layer)
    trial.waits_for_collection = True

    async def right_again() -> None:
        await eventually(
            lambda: len(trial.failed) == len(trial.nodes),
            timeout_seconds=90,
            what="all pulls have failed",
        )
        trial.upstream.corrupt.clear()

    trial.group.create_task(right_again())


async def delay_first_byte(trial: Trial) -> None:
    """Each blob begins after two seconds."""
    trial.upstream.first_byte_seconds = SLOW_FIRST_BYTE_SECONDS


# --- a follower -------------------------------------------------------------------------------------------


async def kill_follower(trial: Trial) -> None:
    """speil and containerd of a follower that is followed."""
    node = trial.in_mid_tree
    trial.lost.add(node)
    node.speil.kill()
    node.containerd.process.kill()


async def kill_follower_speil(trial: Trial) -> None:
    """Its containerd gets a body that breaks off, and goes on upstream: mirrors are asked first again, and refuse."""
    trial.in_mid_tree.speil.kill()


async def freeze_follower(trial: Trial) -> None:
    """SIGSTOP of its speil."""
    node = trial.in_mid_tree
    trial.hit.add(node)
    node.freeze()


# --- who decides ------------------------------------------------------------------------------------------


async def kill_umpire(trial: Trial) -> None:
    """It dies before anybody asks."""
    assert trial.umpire
    trial.umpire.speil.kill()


async def freeze_umpire(trial: Trial) -> None:
    """It takes questions, and does not answer."""
    assert trial.umpire
    trial.umpire.freeze()


async def cut_umpire(trial: Trial) -> None:
    """Packets to it are lost."""
    assert trial.umpire
    trial.lab.cut_off(trial.umpire)


async def kill_umpire_and_fetcher(trial: Trial) -> None:
    """Who decides next has to know the tree."""
    assert trial.umpire
    trial.umpire.speil.kill()
    await kill_both(trial)


async def split(trial: Trial) -> None:
    """Two halves that do not reach each other, while all reach the upstream; they meet again in the middle."""
    half = [node.namespace for node in trial.lab.nodes[::2]]
    for node in trial.lab.nodes[1::2]:
        trial.lab.cut(node.namespace, *half)

    async def heal() -> None:
        await eventually(
            lambda: len(trial.upstream.sent_of(trial.layer)) > 1, timeout_seconds=60, what="two nodes fetch"
        )
        trial.lab.join_networks()

    trial.group.create_task(heal())


# --- members that lie -------------------------------------------------------------------------------------


async def claim_all(trial: Trial, answers: str, *, is_umpire: bool = False, has_secret: bool = False) -> None:
    """A member claims all content before the nodes ask for it."""
    lab = trial.lab
    blobs = {
        str(digest): (len(data), trial.image.media_types[digest])
        for digest, data in trial.image.blobs.items()
        if str(digest) in trial.digests
    }
    plan = {
        "nodes": [{"address": node.address, "peer_id": str(node.peer)} for node in lab.nodes],
        "keys": [] if is_umpire else list(blobs),
        "announce": [lab.stranger.address],
        "answers": answers,
        "blobs": blobs,
        "content": "",
        "region": REGION if has_secret else "",
        "umpire_of": str(trial.layer) if is_umpire else "",
    }
    file, log = lab.folder / "plan.json", lab.folder / f"claimer-{trial.layer.hex[:8]}.log"
    file.write_text(json.dumps(plan))
    process = LabProcess(lab.stranger, [sys.executable, "-m", "tests.system.faults.at_once.claimer", str(file)], log)
    process.start()
    trial.stack.callback(process.stop)

    def has_claimed() -> bool:
        assert process.running, process.log_text()
        return "announced" in process.log_text() or "refused" in process.log_text()

    await eventually(has_claimed, timeout_seconds=LIE_SECONDS_MAX, what="the claims are made")
    trial.notes.append(f"the claimer: {process.log_text().strip()}")


async def claim_and_say_nothing(trial: Trial) -> None:
    """Connections are taken, requests are not answered."""
    await claim_all(trial, "silence")


async def claim_and_have_nothing(trial: Trial) -> None:
    """404 to everything."""
    await claim_all(trial, "404")


async def claim_and_send_garbage(trial: Trial) -> None:
    """The right length, the right headers, other bytes."""
    trial.waits_for_collection = True
    await claim_all(trial, "garbage")


async def decide_and_say_nothing(trial: Trial) -> None:
    """The node that decides names itself."""
    await claim_all(trial, "silence", is_umpire=True)


async def claim_as_stranger(trial: Trial) -> None:
    """The region has a secret, and the one who claims does not."""
    await trial.lab.with_secret(trial.stack)
    await claim_all(trial, "silence", has_secret=True)


# --- nodes that know nothing of claims --------------------------------------------------------------------


async def run_old_speil(trial: Trial) -> None:
    """The last node runs a speil without sharing in flight, and pulls too."""
    source = old_source(trial.lab.folder)
    assert source
    await trial.lab.run_other(trial.nodes[-1], source, trial.stack)


async def run_spegel(trial: Trial) -> None:
    """A go-libp2p DHT as Spegel runs it is a member, and nearest to some of the content."""
    lab = trial.lab
    program = await trial.stack.enter_async_context(
        peer_program(
            "ip",
            "netns",
            "exec",
            lab.stranger.name,
            str(tool_path("interop-peer")),
            f"/ip4/{lab.stranger.address}/tcp/5001",
        )
    )
    for node in lab.nodes:
        await program.ask("connect", addr=f"/ip4/{node.address}/tcp/5001/p2p/{node.peer}")
    for node in lab.nodes:
        await eventually(
            lambda node=node: program.id in {peer["peer"] for peer in node.state()["peers"]},  # type: ignore[misc]
            timeout_seconds=30,
            what="it is in the routing tables",
        )


FETCHES = "fetching from upstream"
LEFT = "left a source"
SPOILED = "a download has wrong bytes"
NEW = ("containerd-2",)
OLD = ("containerd-1.6",)
CLEAN = Case("no fault", FETCHES)
CLEAN_MIDDLE = Case("no fault, from the middle on", FETCHES, during=nothing, takeovers_max=0)
CASES = (
    Case("its speil killed", LEFT, during=kill_speil, copies_max=2.0, in_ci=NEW),
    Case("its containerd killed", LEFT, during=kill_containerd, copies_max=1.9),
    Case("both killed", LEFT, during=kill_both, copies_max=1.9, in_ci=OLD),
    Case("without power", LEFT, during=cut_power, copies_max=1.9),
    Case("its speil frozen", LEFT, during=freeze_speil, copies_max=2.0),
    Case("its containerd frozen", LEFT, during=freeze_containerd, copies_max=1.9),
    Case("its pull cancelled", LEFT, during=cancel_pull, copies_max=1.9, in_ci=OLD),
    Case("its containerd restarted", FETCHES, during=restart_containerd, copies_max=2.0, pulls_max=2),
    Case("its disk full", FETCHES, during=fill_disk, copies_max=2.0, pulls_max=3),
    Case(
        "its ingest truncated",
        FETCHES,
        during=truncate_ingest,
        copies_max=4.0,
        takeovers_max=None,
        added_max=20,
    ),
    Case(
        "its ingest truncated in its middle",
        FETCHES,
        during=truncate_ingest_in_its_middle,
        copies_max=9.0,
        takeovers_max=None,
        pulls_max=2,
        added_max=60,
    ),
    Case("its upstream stalls", LEFT, during=stall_upstream, copies_max=1.9),
    Case("its upstream crawls at 10 kB/s", LEFT, during=slow_upstream, copies_max=1.9, in_ci=NEW),
    Case(
        "the upstream sends wrong bytes", SPOILED, during=corrupt_upstream, copies_max=9.0, takeovers_max=None,
        pulls_max=4, added_max=60, in_ci=NEW,
    ),
    Case("the upstream's first byte takes 2 s", FETCHES, before=delay_first_byte, added_max=8),
    # it may fetch a smaller layer itself: that one is fetched again
    Case("follower in mid-tree killed", LEFT, during=kill_follower, takeovers_max=0, copies_max=1.25),
    Case("speil of a follower in mid-tree killed", LEFT, during=kill_follower_speil, copies_max=2.02),
    Case("follower in mid-tree frozen", LEFT, during=freeze_follower, takeovers_max=0, copies_max=1.25),
    Case("who decides is dead", FETCHES, before=kill_umpire, umpire=3, pullers=3),
    Case("who decides is frozen", FETCHES, before=freeze_umpire, umpire=3, pullers=3),
    Case("who decides is cut off", FETCHES, before=cut_umpire, umpire=3, pullers=3),
    Case(
        "who decides dies, then who downloads", LEFT, during=kill_umpire_and_fetcher, umpire=3, pullers=3,
        copies_max=1.9,
    ),
    Case("partition that heals", FETCHES, before=split, copies_max=2.02, added_max=8),
    Case(
        "a member claims all, sends nothing",
        LEFT,
        before=claim_and_say_nothing,
        added_max=8,  # for the manifests, and once for the config
        copies_max=1.3,
        in_ci=NEW,
    ),
    Case("a member claims all, has nothing", LEFT, before=claim_and_have_nothing, copies_max=1.1),
    Case(
        "a member claims all, sends garbage", SPOILED, before=claim_and_send_garbage, copies_max=4.1,
        takeovers_max=None, pulls_max=3, added_max=60,
    ),
    Case("a member decides, names itself, sends nothing", LEFT, before=decide_and_say_nothing, copies_max=1.1),
    Case("a stranger claims all", FETCHES, before=claim_as_stranger),
    Case("a speil without sharing in the mesh", FETCHES, before=run_old_speil, copies_max=2.02),
    Case("a Spegel node in the mesh", FETCHES, before=run_spegel, needs=("interop-peer",)),
)  # fmt: skip
