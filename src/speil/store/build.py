"""Builds the content store from its settings, and checks the containerd configuration of this node."""

from __future__ import annotations

import os
from pathlib import Path

from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.setting import SettingError
from speil.store.base import ContentStore, StoreError
from speil.store.containerd.client import ContainerdClient
from speil.store.containerd.inspect import inspect
from speil.store.containerd.store import ContainerdStore
from speil.store.ingest_directory import IngestDirectory
from speil.store.oci_layout import OciLayoutStore
from speil.store.series import StoreSeries
from speil.store.settings import StoreSettings

log = get_log("store")


def build_store(settings: StoreSettings, metrics: Metrics) -> ContentStore:
    """The store that the settings name, not yet running.

    Raises SettingError, whose message names the flag, if this process can't use that store. A containerd socket or
    layout that does not exist yet is accepted: the store waits for it.
    """
    series = metrics.of(StoreSeries)
    if settings.store_kind == "oci-layout":
        if not settings.oci_layout_path:
            raise SettingError("--store-kind oci-layout needs --oci-layout-path")
        path = Path(settings.oci_layout_path)
        if path.exists() and not path.is_dir():
            raise SettingError(f"--oci-layout-path: {path} is not a directory")
        return OciLayoutStore(path, series.available.set)
    socket = Path(settings.containerd_sock)
    if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
        raise SettingError(
            f"--containerd-sock: this user may not use {socket}; run as root or as a member of its group"
        )
    if socket.exists() and not socket.is_socket():
        raise SettingError(f"--containerd-sock: {socket} is not a socket")
    content_path = settings.containerd_content_path
    if content_path and not Path(content_path).is_dir():
        raise SettingError(f"--containerd-content-path: {content_path} is not a directory")
    return ContainerdStore(settings.containerd_sock, settings.containerd_namespace, content_path, series)


def build_ingests(store: ContentStore) -> IngestDirectory:
    """The downloads of the runtime whose content `store` serves, not yet running. `store` is from `build_store`."""
    if isinstance(store, OciLayoutStore):
        root = store.root
        return IngestDirectory(lambda: root, strict=True)
    assert isinstance(store, ContainerdStore)
    return IngestDirectory(lambda: store.content_root)


async def warn_about_containerd(settings: StoreSettings, store: ContentStore) -> None:
    """Wait for containerd, then log a warning if its configuration prevents this node from sharing layers.

    Returns at once for other stores.
    """
    if not isinstance(store, ContainerdStore):
        return
    await store.wait_available()
    client = ContainerdClient(settings.containerd_sock, settings.containerd_namespace)
    try:
        facts = await inspect(client, settings.containerd_config)
    except StoreError as error:
        log.debug("containerd configuration can't be read", error=error)
        return
    finally:
        client.close()
    if facts.discard_unpacked_layers:
        log.warning(
            "containerd discards unpacked layers: this node can share manifests only; "
            "set discard_unpacked_layers = false",
            source=facts.source,
        )
