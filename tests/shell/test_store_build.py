"""Building the content store from its settings: what is refused, and the warning about containerd's configuration."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from speil.observe.metrics import Metrics
from speil.setting import SettingError
from speil.store.build import build_store, warn_about_containerd
from speil.store.containerd.store import ContainerdStore
from speil.store.oci_layout import OciLayoutStore
from speil.store.settings import StoreSettings
from tests.shell.test_containerd_store import Daemon


def layout(path: str) -> StoreSettings:
    return StoreSettings(store_kind="oci-layout", oci_layout_path=path)


def test_a_layout_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    assert isinstance(build_store(layout(str(tmp_path / "later")), Metrics()), OciLayoutStore)


def test_a_layout_needs_a_path_to_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs --oci-layout-path"):
        build_store(layout(""), Metrics())
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"--oci-layout-path: .*file is not a directory"):
        build_store(layout(str(tmp_path / "file")), Metrics())


def test_a_containerd_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    store = build_store(StoreSettings(containerd_sock=str(tmp_path / "later.sock")), Metrics())
    assert isinstance(store, ContainerdStore)
    assert not store.available


def test_containerds_socket_has_to_be_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"--containerd-sock: .*file is not a socket"):
        build_store(StoreSettings(containerd_sock=str(tmp_path / "file")), Metrics())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_containerds_socket_has_to_be_usable(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0)
        with pytest.raises(SettingError, match="this user may not use"):
            build_store(StoreSettings(containerd_sock=str(path)), Metrics())


def test_the_content_path_has_to_be_a_directory(tmp_path: Path) -> None:
    settings = StoreSettings(
        containerd_sock=str(tmp_path / "c.sock"), containerd_content_path=str(tmp_path / "nowhere")
    )
    with pytest.raises(SettingError, match=r"--containerd-content-path: .*nowhere is not a directory"):
        build_store(settings, Metrics())


@pytest.mark.parametrize("discards", [True, False])
async def test_a_containerd_that_discards_layers_is_warned_about(
    discards: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f"[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = {str(discards).lower()}\n"
    )
    daemon = Daemon(tmp_path)
    await daemon.start()
    settings = StoreSettings(containerd_sock=str(daemon.socket), containerd_config=str(config))
    store = build_store(settings, Metrics())
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(store.run())
            await warn_about_containerd(settings, store)
            running.cancel()
    finally:
        await daemon.stop()
    assert ("containerd discards unpacked layers" in caplog.text) == discards


async def test_other_stores_are_not_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = layout(str(tmp_path))
    await warn_about_containerd(settings, build_store(settings, Metrics()))
    assert not caplog.records
