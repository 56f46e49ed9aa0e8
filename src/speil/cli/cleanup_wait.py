"""`speil cleanup-wait`: until all nodes have cleaned up, as their DaemonSet or an address of them all shows.

With a DaemonSet the nodes are counted that should have a pod: one that is down is named at the end, and the DaemonSet
stays, so that the node cleans up when it is back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from speil.cli.app import CommandError
from speil.cli.running import run_async
from speil.config import ConfigError
from speil.http1.client import HttpClient, HttpError
from speil.http1.url import parse_url
from speil.observe.logs import get_log
from speil.setting import Kind, SettingError, boolean, duration, integer, setting
from speil.tcp import addresses_of
from speil.version import __version__

if TYPE_CHECKING:
    from speil.kube.api import KubeApi

REQUEST_SECONDS_MAX = 5.0
# A Lease that nobody has renewed for so long beyond its duration is given up: clocks and API servers are slow at times.
GIVEN_UP_SECONDS = 5.0
NAMED_MAX = 20
ANSWER_BYTES_MAX = 64 << 10  # the answer is empty; a proxy's page is not

log = get_log("cleanup-wait")


def _endpoint(value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SettingError(f"{value!r} is not an endpoint: write it like http://speil-cleanup:8080")
    return url


def _object(value: str) -> str:
    if value and len([part for part in value.split("/") if part]) != 2:
        raise SettingError(f"{value!r} is not NAMESPACE/NAME")
    return value


named_object = Kind("namespace/name", _object)


@dataclass(frozen=True, slots=True)
class Settings:
    """What to wait for: one of the first two."""

    probe_endpoint: str = setting(Kind("URL", _endpoint), "", help="An address behind which all nodes answer.")
    daemonset: str = setting(named_object, "", help="The DaemonSet that cleans up, as NAMESPACE/NAME.")
    timeout: float = setting(duration, 240.0, help="With --daemonset: how long to wait at most.")
    since_creation: bool = setting(
        boolean, False, help="With --daemonset: count --timeout from when the DaemonSet was made, not from now."
    )
    remove: bool = setting(boolean, False, help="With --daemonset: remove it when all nodes have cleaned up.")
    lease: str = setting(
        named_object, "", help="With --daemonset: a Lease to remove where nobody renews it, as NAMESPACE/NAME."
    )
    threshold: int = setting(integer, 3, help="With --probe-endpoint: how many times in a row all addresses answer.")
    period: float = setting(duration, 2.0, help="With --probe-endpoint: how long to wait between probes.")


def run(settings: Settings) -> int:
    """Wait as long as the settings say. Raises ConfigError, CommandError."""
    if bool(settings.probe_endpoint) == bool(settings.daemonset):
        raise ConfigError("give one of --daemonset and --probe-endpoint")
    run_async(_wait_for_pods(settings) if settings.daemonset else _wait_for_answers(settings))
    return 0


async def _wait_for_pods(settings: Settings) -> None:
    from speil.kube.api import KubeApi
    from speil.kube.daemonset import DaemonSetState, remove_daemonset, wait_for_daemonset
    from speil.kube.error import KubeError, KubeNotFoundError
    from speil.kube.in_cluster import InClusterAccess

    namespace, _, name = settings.daemonset.partition("/")

    def seen(state: DaemonSetState) -> None:
        log.info("nodes cleaned up", ready=state.ready, desired=state.desired, waiting=list(state.waiting[:NAMED_MAX]))

    api = KubeApi(InClusterAccess(), f"speil/{__version__}")
    try:
        async with asyncio.TaskGroup() as tasks:
            if settings.lease:
                tasks.create_task(remove_lease(api, *settings.lease.split("/", 1)))
            state = await wait_for_daemonset(
                api, namespace, name, settings.timeout, seen, since_creation=settings.since_creation
            )
        if state.is_ready and settings.remove:
            with suppress(KubeNotFoundError):
                await remove_daemonset(api, namespace, name)
    except* KubeError as group:
        raise CommandError(str(group.exceptions[0])) from group
    finally:
        await api.close()
    if not state.is_ready:
        names = ", ".join(state.waiting[:NAMED_MAX]) + (" and more" if len(state.waiting) > NAMED_MAX else "")
        left = "no node" if state.desired is None else f"{state.ready} of {state.desired} nodes"
        raise CommandError(
            f"{left} cleaned up in {settings.timeout:.0f} s; not yet: {names or 'unknown'}. Their hosts.toml"
            f" still names speil, which costs a pull one refused connection. DaemonSet {settings.daemonset} stays: it"
            f" cleans a node that is back. Then run `kubectl -n {namespace} delete daemonset {name}`"
        )


async def remove_lease(api: KubeApi, namespace: str, name: str) -> None:
    """Its region has gone; a Lease that is renewed is another release's and stays."""
    from speil.kube.error import KubeError, KubeNotFoundError

    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        before = (await api.request("GET", path)).document
        seconds = float(before["spec"].get("leaseDurationSeconds") or 1)
        if before["spec"].get("holderIdentity"):
            await asyncio.sleep(seconds + GIVEN_UP_SECONDS)
        # refused where it was renewed in the meantime
        version = {"preconditions": {"resourceVersion": before["metadata"]["resourceVersion"]}}
        await api.request("DELETE", path, version)
    except KubeNotFoundError:
        return
    except KubeError as error:
        log.warning("the Lease is left", lease=f"{namespace}/{name}", error=error)
    else:
        log.info("lease removed", lease=f"{namespace}/{name}")


async def _wait_for_answers(settings: Settings) -> None:
    in_a_row = 0
    while in_a_row < settings.threshold:
        in_a_row = in_a_row + 1 if await _all_answer(settings.probe_endpoint) else 0
        log.info(
            "cleanup endpoint probed", endpoint=settings.probe_endpoint, in_a_row=in_a_row, threshold=settings.threshold
        )
        if in_a_row < settings.threshold:
            await asyncio.sleep(settings.period)


async def _all_answer(url: str) -> bool:
    """Whether every address behind the endpoint's name answers 200."""
    origin, path = parse_url(url).origin, urlsplit(url).path
    try:
        hosts = {str(address.where[0]) for address in await addresses_of(origin.host, origin.port)}
    except OSError as error:
        log.info("cleanup endpoint does not resolve yet", host=origin.host, error=error)
        return False
    client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX)
    try:
        return all([await _answers(client, f"{replace(origin, host=host)}{path}") for host in sorted(hosts)])
    finally:
        await client.close()


async def _answers(client: HttpClient, url: str) -> bool:
    try:
        answer = await client.request("GET", url, answer_bytes_max=ANSWER_BYTES_MAX)
    except HttpError:
        return False
    return answer.status == 200
