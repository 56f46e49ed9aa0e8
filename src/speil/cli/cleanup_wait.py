"""`speil cleanup-wait`: until a probe endpoint that stands for all nodes has answered several times in a row."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from speil.http1.client import HttpClient, HttpError
from speil.observe.logs import get_log
from speil.setting import Kind, SettingError, duration, integer, setting

REQUEST_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 64 << 10  # the answer is empty; a proxy's page is not

log = get_log("cleanup-wait")


def _endpoint(value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SettingError(f"{value!r} is not an endpoint: say something like http://speil-cleanup:8080")
    return url


@dataclass(frozen=True, slots=True)
class Settings:
    """Flags."""

    probe_endpoint: str = setting(Kind("URL", _endpoint), required=True, help="The address of the cleanup Service.")
    threshold: int = setting(integer, 3, help="How many times in a row all its addresses must answer.")
    period: float = setting(duration, 2.0, help="How long to wait between probes.")


def run(settings: Settings) -> int:
    """Wait."""
    asyncio.run(_wait(settings))
    return 0


async def _wait(settings: Settings) -> None:
    in_a_row = 0
    while in_a_row < settings.threshold:
        in_a_row = in_a_row + 1 if await _all_answer(settings.probe_endpoint) else 0
        log.info("probed", endpoint=settings.probe_endpoint, in_a_row=in_a_row, threshold=settings.threshold)
        if in_a_row < settings.threshold:
            await asyncio.sleep(settings.period)


async def _all_answer(url: str) -> bool:
    """Whether every address behind the endpoint's name answers 200."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        log.info("the name does not resolve yet", host=parts.hostname, error=error)
        return False
    hosts = {str(entry[4][0]) for entry in found}
    client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX)
    try:
        return all([await _answers(client, parts.scheme, host, port, parts.path) for host in sorted(hosts)])
    finally:
        await client.close()


async def _answers(client: HttpClient, scheme: str, host: str, port: int, path: str) -> bool:
    shown = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    try:
        answer = await client.request("GET", f"{scheme}://{shown}:{port}{path}", answer_bytes_max=ANSWER_BYTES_MAX)
    except HttpError:
        return False
    return answer.status == 200
