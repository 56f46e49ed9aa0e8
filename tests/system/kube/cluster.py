"""etcd and kube-apiserver as processes of the test, on loopback or a host of the lab, with their own certificates.

What a test needs of a cluster is here: regions with a namespace, a ServiceAccount and the narrow Role that the chart
gives; the files of a pod; the audit log of the Leases; and the faults: pause, kill, restart with another CA or at
another port.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from speil.kube.api import KubeApi
from speil.kube.error import KubeConflictError, KubeError
from speil.kube.in_cluster import InClusterAccess
from speil.kube.kubeconfig import KubeconfigAccess
from speil.testing.certificates import CertificateAuthority, new_key
from speil.testing.eventually import eventually
from tests.requirements import kube_tool_path
from tests.system.lab.namespaces import Namespace

READY_SECONDS_MAX = 90
HOST = "127.0.0.1"
USER_AGENT = "speil-test"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None"},
    ],
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Pod:
    """What a pod has to reach the API: its ServiceAccount's volume and its environment."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def api(self) -> KubeApi:
        """A client as this pod; the caller closes it."""
        return KubeApi(InClusterAccess(self.folder, self.environ), USER_AGENT)

    def write_token(self, token: str) -> None:
        """As the kubelet rotates it."""
        (self.folder / "token").write_text(token)


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request for a Lease as the API server's audit log has it. `name` is "" where none was named (a list)."""

    user: str
    source: str
    verb: str
    namespace: str
    name: str
    code: int


class KubeCluster:
    """Use `start`, `stop`; everything lies in `folder`. On loopback, or in a namespace at its address."""

    def __init__(self, folder: Path, namespace: Namespace | None = None) -> None:
        self.folder, self._namespace = folder, namespace
        self.host = namespace.address if namespace else HOST
        self.port, self._etcd_port, self._etcd_peer_port = free_port(), free_port(), free_port()
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._pods = 0
        self.authority = CertificateAuthority()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """etcd, then the API server; ready when this returns."""
        private, public = new_key()
        (self.folder / "sa.key").write_bytes(private)
        (self.folder / "sa.pub").write_bytes(public)
        (self.folder / "audit.json").write_text(json.dumps(_AUDIT_POLICY))
        (self.folder / "tokens.csv").write_text('admin-token,admin,1,"system:masters"\nnobody-token,nobody,2\n')
        client, peer = f"http://{HOST}:{self._etcd_port}", f"http://{HOST}:{self._etcd_peer_port}"
        self._etcd = self._popen(
            "etcd", "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", client, "--advertise-client-urls",
            client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster",
            f"default={peer}", "--unsafe-no-fsync", "--log-level", "error",
        )  # fmt: skip
        self.write_certificates()
        await self.start_server()

    def write_certificates(self) -> None:
        """The server's certificate, of the CA as it is now; used when the server starts."""
        pair = self.authority.issue_server(self.host, "localhost", "10.96.0.1")
        (self.folder / "tls.crt").write_bytes(pair.certificate)
        (self.folder / "tls.key").write_bytes(pair.key)
        (self.folder / "ca.crt").write_bytes(self.authority.pem)

    async def start_server(self) -> None:
        """The API server, on what etcd holds."""
        path = self.folder
        self.write_kubeconfig(self.kubeconfig, "admin-token")
        self._server = self._popen(
            "kube-apiserver", f"--etcd-servers=http://{HOST}:{self._etcd_port}", f"--bind-address={self.host}",
            f"--advertise-address={self.host}", f"--secure-port={self.port}", f"--tls-cert-file={path / 'tls.crt'}",
            f"--tls-private-key-file={path / 'tls.key'}", f"--client-ca-file={path / 'ca.crt'}",
            f"--token-auth-file={path / 'tokens.csv'}", f"--service-account-key-file={path / 'sa.pub'}",
            f"--service-account-signing-key-file={path / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/24", "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true", "--profiling=false", f"--cert-dir={path / 'run'}",
            f"--audit-policy-file={path / 'audit.json'}", f"--audit-log-path={path / 'audit.log'}",
        )  # fmt: skip
        await eventually(self._ready, timeout_seconds=READY_SECONDS_MAX, what="the API server is ready")

    def kill_server(self) -> None:
        """SIGKILL: on SIGTERM an API server lingers while a watch is open."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def pause(self) -> None:
        """SIGSTOP: connections are taken, nothing is answered."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End both."""
        for process in (self._server, self._etcd):
            if process is not None:
                process.kill()
                process.wait()

    # --- use --------------------------------------------------------------------------------------------

    async def admin(self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """A request as the administrator."""
        api = KubeApi(KubeconfigAccess([self.kubeconfig]), USER_AGENT)
        try:
            return dict((await api.request(method, path, body, **more)).document)
        finally:
            await api.close()

    async def region(self, namespace: str, lease: str) -> None:
        """A namespace, and a ServiceAccount that may do its election on one Lease and nothing else."""
        meta = {"name": "speil", "namespace": namespace}
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rule = {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [lease],
            "verbs": ["get", "create", "update"],
        }
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "speil"}
        subject = {"kind": "ServiceAccount", "name": "speil", "namespace": namespace}
        await self._make("/api/v1/namespaces", {"metadata": {"name": namespace}})
        await self._make(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": meta})
        await self._make(f"{rbac}/roles", {"metadata": meta, "rules": [rule]})
        await self._make(f"{rbac}/rolebindings", {"metadata": meta, "roleRef": role, "subjects": [subject]})

    async def token(self, namespace: str, account: str = "speil") -> str:
        """A bound token of the region's ServiceAccount."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = await self.admin("POST", path, {"spec": {"expirationSeconds": 3600}})
        token: str = answer["status"]["token"]
        return token

    async def pod(self, namespace: str, account: str = "speil") -> Pod:
        """A pod with the region's ServiceAccount."""
        self._pods += 1
        pod = Pod(self.folder / f"pod{self._pods}")
        pod.folder.mkdir()
        pod.write_token(await self.token(namespace, account))
        self.point(pod)
        return pod

    async def running_pod(self, namespace: str, name: str, node: str, address: str) -> None:
        """The API object of a speil pod: no kubelet starts it, but something listens at its address."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        labels = {"app.kubernetes.io/name": "speil"}
        spec = {"nodeName": node, "containers": [{"name": "registry", "image": "speil"}]}
        await self.admin("POST", path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        merge = "application/merge-patch+json"
        await self.admin("PATCH", f"{path}/{name}/status", status, content_type=merge)

    def point(self, pod: Pod) -> None:
        """Give a pod the CA and address as they are now."""
        (pod.folder / "ca.crt").write_bytes(self.authority.pem)
        pod.environ |= {"KUBERNETES_SERVICE_HOST": self.host, "KUBERNETES_SERVICE_PORT": str(self.port)}

    def write_kubeconfig(self, path: Path, token: str) -> Path:
        """A kubeconfig for a token; kubectl, helm and client-go read it too."""
        cluster = {"server": f"https://{self.host}:{self.port}", "certificate-authority": str(self.folder / "ca.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(json.dumps(document))
        return path

    async def lease_requests(self) -> dict[tuple[str, str], float]:
        """How many requests for Leases the server has answered, by verb and code, in its own count."""
        access = await KubeconfigAccess([self.kubeconfig]).current()
        headers = {"Authorization": access.authorization}
        url = f"{access.server}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=access.tls, headers=headers) as response:
            return _lease_requests(await response.text())

    def lease_audit(self) -> list[LeaseRequest]:
        """Every request for a Lease that the server has answered, in its audit log but for the line being written."""
        events = map(json.loads, (self.folder / "audit.log").read_text().rpartition("\n")[0].splitlines())
        return [
            LeaseRequest(
                event["user"]["username"],
                event["sourceIPs"][0],
                event["verb"],
                event["objectRef"].get("namespace", ""),
                event["objectRef"].get("name", ""),
                event["responseStatus"]["code"],
            )
            for event in events
        ]

    # --- inside -----------------------------------------------------------------------------------------

    def _popen(self, tool: str, *arguments: str) -> subprocess.Popen[bytes]:
        argv = [str(kube_tool_path(tool)), *arguments]
        start = self._namespace.popen if self._namespace else subprocess.Popen
        with (self.folder / f"{tool}.log").open("ab") as log:
            return start(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def _ready(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
            raise RuntimeError(f"the API server ended: {log[-1500:]}")
        try:
            # the namespaces of the system come after readiness; a test's own first object needs only this
            await self.admin("GET", "/readyz")
            await self.admin("GET", "/api/v1/namespaces/default")
        except KubeError:
            return False
        return True

    async def _make(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            await self.admin("POST", path, body)
        except KubeConflictError:
            return  # there already


def _lease_requests(text: str) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "apiserver_request_total" and labels.get("resource") == "leases":
                key = labels["verb"], labels["code"]
                found[key] = found.get(key, 0.0) + sample.value
    return found
