"""etcd, API server, controllers, scheduler and the two registries, all in the control plane's network namespace."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterable
from pathlib import Path

from speil.testing.certificates import CertificateAuthority, new_key
from tests.cluster.lab.kube_client import KubeClient
from tests.cluster.lab.layout import (
    API_PORT,
    CONTROL,
    PLANS,
    PRIVATE,
    PRIVATE_REGISTRY,
    REGISTRY,
    SERVICES,
)
from tests.cluster.lab.network import Network
from tests.cluster.lab.processes import Processes
from tests.cluster.lab.waiting import wait_for
from tests.requirements import kube_tool_path
from tests.system.lab.registry import HTPASSWD

READY_SECONDS_MAX = 120.0
ETCD, ETCD_PEER = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
# Users of the tokens; a node's is its own.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "nobody": ("nobody", ""),
}
_REGISTRY_CONFIG = """version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {folder}/{name}}}, delete: {{enabled: true}}}}
http: {{addr: "{address}:443", tls: {{certificate: {folder}/registry.crt, key: {folder}/registry.key}}}}
{auth}"""


class ControlPlane:
    """Its files are in `folder`: certificates, kubeconfigs, what etcd and the registries hold."""

    def __init__(self, folder: Path, network: Network, processes: Processes) -> None:
        self.folder, self._network, self._processes = folder, network, processes

    def kubeconfig(self, user: str) -> Path:
        """The one of admin, controllers, scheduler, proxy, nobody, or a node."""
        return self.folder / f"{user}.kubeconfig"

    @property
    def authority(self) -> Path:
        """The certificate that signs all others."""
        return self.folder / "ca.crt"

    def tls(self) -> ssl.SSLContext:
        """Trusts the authority."""
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self) -> KubeClient:
        """As the administrator; from inside the network namespace."""
        return KubeClient(CONTROL, API_PORT, "admin-token", self.tls())

    def write_files(self) -> None:
        """Certificates, tokens and kubeconfigs."""
        self.folder.mkdir(parents=True)
        authority = CertificateAuthority("speil test cluster")
        self.authority.write_bytes(authority.pem)
        names = {
            "server": authority.issue_server(CONTROL, "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"),
            "registry": authority.issue_server(REGISTRY, PRIVATE_REGISTRY, CONTROL, PRIVATE),
            "kubelet-client": authority.issue_client("kube-apiserver-kubelet-client", "system:masters"),
        }
        for name, pair in names.items():
            (self.folder / f"{name}.crt").write_bytes(pair.certificate)
            (self.folder / f"{name}.key").write_bytes(pair.key)
        private, public = new_key()
        (self.folder / "accounts.key").write_bytes(private)
        (self.folder / "accounts.pub").write_bytes(public)
        (self.folder / "htpasswd").write_text(HTPASSWD)
        users = _USERS | {node: (f"system:node:{node}", "system:nodes") for node in PLANS}
        lines = [f'{key}-token,{user},{number},"{group}"' for number, (key, (user, group)) in enumerate(users.items())]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        for user in users:
            self._write_kubeconfig(user)

    def _write_kubeconfig(self, user: str) -> None:
        cluster = {"server": f"https://{CONTROL}:{API_PORT}", "certificate-authority": str(self.authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        }
        self.kubeconfig(user).write_text(json.dumps(document))

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All of it; the API server is ready when this returns."""
        self._start(
            "etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}", f"--listen-peer-urls={ETCD_PEER}",
            f"--initial-advertise-peer-urls={ETCD_PEER}", f"--initial-cluster=default={ETCD_PEER}",
            "--unsafe-no-fsync", "--log-level=error",
        )  # fmt: skip
        self.start_registries()
        self.start_api_server()
        client = self.client()
        wait_for(client.is_ready, seconds=READY_SECONDS_MAX, what="the API server is ready")
        self._start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig('controllers')}", "--leader-elect=false",
            "--use-service-account-credentials=true", f"--root-ca-file={self.authority}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}", "--controllers=*,-nodeipam",
            "--bind-address=127.0.0.1", f"--cert-dir={self.folder / 'run'}",
            # a dead node is seen sooner than in the default 40 s
            "--node-monitor-grace-period=20s", "--node-monitor-period=2s",
        )  # fmt: skip
        self._start(
            "kube-scheduler", f"--kubeconfig={self.kubeconfig('scheduler')}", "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--cert-dir={self.folder / 'run'}",
        )  # fmt: skip

    def start_api_server(self) -> None:
        """Not waited for."""
        of = self.folder
        self._start(
            "kube-apiserver", f"--etcd-servers={ETCD}", f"--bind-address={CONTROL}", f"--secure-port={API_PORT}",
            f"--advertise-address={CONTROL}", f"--tls-cert-file={of / 'server.crt'}",
            f"--tls-private-key-file={of / 'server.key'}", f"--client-ca-file={self.authority}",
            f"--token-auth-file={of / 'tokens.csv'}", f"--service-account-key-file={of / 'accounts.pub'}",
            f"--service-account-signing-key-file={of / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--kubelet-client-certificate={of / 'kubelet-client.crt'}",
            f"--kubelet-client-key={of / 'kubelet-client.key'}", "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true", "--profiling=false",
            f"--cert-dir={of / 'run'}",
        )  # fmt: skip

    def pause_api_server(self) -> None:
        """SIGSTOP: connections are taken, nothing is answered."""
        self._processes.signal("kube-apiserver", signal.SIGSTOP)

    def resume_api_server(self) -> None:
        """SIGCONT."""
        self._processes.signal("kube-apiserver", signal.SIGCONT)

    def start_registries(self) -> None:
        """One that anybody may read, and one with a password."""
        auth = f'auth: {{htpasswd: {{realm: lab, path: "{self.folder / "htpasswd"}"}}}}'
        for name, address, more in ((REGISTRY, CONTROL, ""), (PRIVATE_REGISTRY, PRIVATE, auth)):
            config = self.folder / f"{name}.yml"
            config.write_text(_REGISTRY_CONFIG.format(folder=self.folder, name=name, address=address, auth=more))
            self._processes.start(name, [*self._enter(), "docker-registry", "serve", str(config)])

    def stop_registries(self) -> None:
        """No upstream is left."""
        for name in (REGISTRY, PRIVATE_REGISTRY):
            self._processes.kill(name)

    def _start(self, tool: str, *arguments: str) -> None:
        self._processes.start(tool, [*self._enter(), str(kube_tool_path(tool)), *arguments])

    def _enter(self) -> Iterable[str]:
        return self._network.enter(self._network.control)
