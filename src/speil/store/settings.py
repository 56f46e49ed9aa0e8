"""Settings of the content store."""

from __future__ import annotations

from dataclasses import dataclass

from speil.setting import one_of, setting, socket_path, text

DEFAULT_CONFIG_FILE = "/etc/containerd/config.toml"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Which store this node serves, and how to reach it."""

    store_kind: str = setting(
        one_of("containerd", "oci-layout"), "containerd", help="Serve a containerd's content, or an OCI image layout."
    )
    containerd_sock: str = setting(
        socket_path, "/run/containerd/containerd.sock", help="containerd's socket; unix:// may stand before it."
    )
    containerd_namespace: str = setting(
        text, "k8s.io", help="containerd's namespace whose images are served; the kubelet's is k8s.io."
    )
    containerd_content_path: str = setting(
        text, "", help="Where containerd's content is, as this process sees it. Empty: ask containerd."
    )
    containerd_config: str = setting(
        text,
        DEFAULT_CONFIG_FILE,
        help="containerd's configuration file; used for a warning if containerd does not report its configuration.",
    )
    oci_layout_path: str = setting(text, "", help="For oci-layout: the directory.")
