"""`speil prepull-wait`: until every node has the new image, or for a time. The update goes on either way."""

from __future__ import annotations

from dataclasses import dataclass

from speil.cli.cleanup_wait import NAMED_MAX, named_object
from speil.cli.running import run_async
from speil.observe.logs import get_log
from speil.setting import boolean, duration, setting
from speil.version import __version__

log = get_log("prepull-wait")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to wait for."""

    daemonset: str = setting(named_object, required=True, help="The DaemonSet of `prepull`, as NAMESPACE/NAME.")
    timeout: float = setting(duration, 120.0, help="How long to wait at most.")
    since_creation: bool = setting(
        boolean, False, help="Count --timeout from when the DaemonSet was made, not from now."
    )


def run(settings: Settings) -> int:
    """Wait for the DaemonSet, or until the timeout. The exit code is 0 in both cases."""
    run_async(_wait(settings))
    return 0


async def _wait(settings: Settings) -> None:
    from speil.kube.api import KubeApi
    from speil.kube.daemonset import DaemonSetState, wait_for_daemonset
    from speil.kube.error import KubeError
    from speil.kube.in_cluster import InClusterAccess

    def seen(state: DaemonSetState) -> None:
        log.info(
            "nodes have the image", ready=state.ready, desired=state.desired, waiting=list(state.waiting[:NAMED_MAX])
        )

    api = KubeApi(InClusterAccess(), f"speil/{__version__}")
    namespace, _, name = settings.daemonset.partition("/")
    try:
        state = await wait_for_daemonset(
            api, namespace, name, settings.timeout, seen, since_creation=settings.since_creation
        )
    except KubeError as error:
        log.warning("nodes were not waited for: they pull the image when their pod is replaced", error=error)
        return
    finally:
        await api.close()
    if not state.is_ready:
        log.warning(
            "nodes without the image: they pull it when their pod is replaced",
            waiting=list(state.waiting[:NAMED_MAX]),
            after_seconds=settings.timeout,
        )
