"""`python -m bench.hostile_attack NAME WORLD`: one attack. WORLD is JSON, the fields of `World`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from typing import Any

from bench import hostile_http, hostile_mesh
from bench.hostile_http import World

NICENESS = 10  # two cores are shared by the attacker, who in life has his own, and the node


def main() -> None:
    os.nice(NICENESS)
    logging.disable(logging.CRITICAL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    name, world = sys.argv[1], World(**json.loads(sys.argv[2]))
    if (plain := hostile_http.ATTACKS.get(name)) is not None:
        plain(world)
    else:
        asyncio.run(_until_time_is_up(hostile_mesh.ATTACKS[name], world))


async def _until_time_is_up(attack: Any, world: World) -> None:
    try:
        async with asyncio.timeout(world.seconds + 5):
            await attack(world)
    except TimeoutError:
        pass


if __name__ == "__main__":
    main()
