"""The access of a pod: address from the environment, token and CA from the ServiceAccount's volume.

Both files are read for each request, because the kubelet rotates the token. To read a kilobyte every two seconds costs
less than to find out when it was rotated.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from speil.kube.access import Access, read_file, tls_context
from speil.kube.error import KubeAccessError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class InClusterAccess:
    """See AccessSource. `directory` and `environ` are those of a pod."""

    def __init__(self, directory: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
        self._directory, self._environ = directory, environ
        self._ca = b""
        self._tls: ssl.SSLContext | None = None

    async def current(self) -> Access:
        """See AccessSource."""
        host, port = self._environ.get("KUBERNETES_SERVICE_HOST", ""), self._environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise KubeAccessError(
                "this is not a pod of a cluster (KUBERNETES_SERVICE_HOST is not set): run it in a pod, or set"
                " --kubeconfig-path where the command has that flag"
            )
        token = read_file(self._directory / "token", "the ServiceAccount's token").decode("ascii", "replace").strip()
        ca = read_file(self._directory / "ca.crt", "the cluster's CA certificate")
        if self._tls is None or ca != self._ca:
            self._tls, self._ca = tls_context(ca), ca
        return Access(
            f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", self._tls, f"Bearer {token}"
        )

    def refused(self) -> None:
        """See AccessSource: nothing is cached."""
