"""Short answers of the pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from speil.http1.guard import Refused
from speil.http1.reply import Reply
from speil.web.headers import SECURITY_HEADERS


async def send_json(reply: Reply, document: Mapping[str, Any]) -> None:
    """Answer 200 with a JSON object."""
    kind = ("Content-Type", "application/json; charset=utf-8")
    await reply.send(200, [kind, *SECURITY_HEADERS], json.dumps(document).encode())


async def refuse(reply: Reply, refused: Refused) -> None:
    """Answer with a line of text."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), *SECURITY_HEADERS]
    if refused.status == 429:
        headers.append(("Retry-After", "1"))
    await reply.send(refused.status, headers, f"{refused.why}\n".encode())


@asynccontextmanager
async def until_abandoned(reply: Reply) -> AsyncIterator[None]:
    """Cancel the block where nobody waits for the answer any more; then it raises TimeoutError."""
    async with asyncio.timeout(None) as limit:
        reply.when_abandoned(lambda: limit.reschedule(asyncio.get_running_loop().time()))
        try:
            yield
        finally:
            reply.when_abandoned(lambda: None)
