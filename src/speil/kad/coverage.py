"""Whether a key needs a record of this node, or has enough other providers.

A popular layer is on every node of a region. If each of them announced it, most of the mesh's traffic would be records
that nobody needs. So a holder asks some of the nodes that keep a key's records how many others provide it. Only records
that are valid beyond the holder's next check (`HORIZON_SECONDS`) count. Where there are enough, it does not announce.
Those records stay valid until it checks again. When their providers die or withdraw, the records soon no longer count,
and the holder that checks next announces. So holders take turns, in the order of their sweeps.

The smallest count decides: a node that has just joined and has no records yet gets them, and one malicious node can't
suppress a key. Where too few nodes answer, as in a mesh of nodes that do not know the question, everything is
announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from speil.kad.key import Key
from speil.kad.provide_schedule import LOOK_SECONDS_MAX
from speil.multiformats.peer_id import PeerId

if TYPE_CHECKING:
    from random import Random

ENOUGH = 16  # providers; an answer names up to 20, and each can serve several nodes at a time
ENOUGH_IN_ZONE = 6  # of them in this node's zone, so that other nodes of the zone find some there
ENOUGH_FOR_NEW = 48  # in a roll-out every node pulls the new layer at once, so it needs many sources
ASKED = 3  # nodes for each key; chosen at random, so that few malicious nodes can't suppress a key for long
ANSWERS_MIN = 2
HORIZON_SECONDS = LOOK_SECONDS_MAX + 60.0  # the next check, and time for it to end
Counts = tuple[int, int]  # providers in all, and in this node's zone


def is_covered(counts: Sequence[Counts], *, has_zone: bool, is_new: bool) -> bool:
    """Whether a key has enough providers without this node, by the counts of the nodes that answered."""
    if len(counts) < ANSWERS_MIN:
        return False
    total, near = (min(values) for values in zip(*counts, strict=True))
    if total < (ENOUGH_FOR_NEW if is_new else ENOUGH):
        return False
    return near >= ENOUGH_IN_ZONE or not has_zone


def whom_to_ask(keys_of: dict[PeerId, list[Key]], rng: Random) -> dict[PeerId, list[Key]]:
    """Which peers to ask about which keys: ASKED of the peers that keep each key, in few requests.

    `keys_of` has the keys that each peer keeps. Peers that keep most come first, in random order among equals.
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
