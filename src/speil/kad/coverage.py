"""Whether a key needs our record, or has enough providers without us.

A popular layer is on every node of a region. If each of them announced it, most of the mesh's traffic would be records
that nobody needs. So a holder asks some of the nodes that keep a key's records how many others provide it, counting
only records that outlive our next look (`HORIZON_SECONDS`), and is silent where there are enough. Whatever the others
do then, they stay that many until we look again; when they die or withdraw, their records soon no longer count, and
whoever looks next steps in. So holders take turns, in the order of their sweeps.

The least count decides: a node that has just joined and keeps no records yet gets them, and one liar silences nobody.
Where too few answer, as in a mesh of nodes that don't know the question, everything is announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from speil.kad.key import Key
from speil.kad.provide_schedule import LOOK_SECONDS_MAX
from speil.multiformats.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

ENOUGH = 16  # providers; a lookup is answered with up to 20, and each can serve several at a time
ENOUGH_IN_ZONE = 6  # of them in our zone, so that whoever is in it finds some there
ENOUGH_FOR_NEW = 48  # in a roll-out everybody wants the new layer at once: its sources shall be many
ASKED = 3  # nodes, about each key; taken by chance, so that it takes many liars to silence a key for long
ANSWERS_MIN = 2
HORIZON_SECONDS = LOOK_SECONDS_MAX + 60.0  # our next look, and time for it to end
Counts = tuple[int, int]  # providers in all, and in our zone


def is_covered(counts: Sequence[Counts], *, has_zone: bool, is_new: bool) -> bool:
    """Whether a key has enough providers without us, as the nodes that answered tell."""
    if len(counts) < ANSWERS_MIN:
        return False
    total, near = (min(values) for values in zip(*counts, strict=True))
    if total < (ENOUGH_FOR_NEW if is_new else ENOUGH):
        return False
    return near >= ENOUGH_IN_ZONE or not has_zone


def whom_to_ask(keys_of: dict[PeerId, list[Key]], rng: Random) -> dict[PeerId, list[Key]]:
    """Each key's question to ASKED of the peers that keep it, in as few questions as chance allows.

    `keys_of` says which keys a peer keeps. Peers that keep most are asked first, by chance among them.
    """
    order = list(keys_of)
    rng.shuffle(order)
    order.sort(key=lambda peer_id: len(keys_of[peer_id]), reverse=True)
    asked: dict[Key, int] = {}
    questions: dict[PeerId, list[Key]] = {}
    for peer_id in order:
        keys = [key for key in keys_of[peer_id] if asked.get(key, 0) < ASKED]
        for key in keys:
            asked[key] = asked.get(key, 0) + 1
        if keys:
            questions[peer_id] = keys
    return questions
