"""Every public coroutine of the Kubernetes client, the Leases, the election's driver and the survey, cancelled at each
of its suspensions: no child task outlives it, no descriptor stays open.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

from speil.election.ownership import Owner
from speil.election.record import encode
from speil.kube import access, api, exec_credential, in_cluster, kubeconfig, node_labels, node_region
from speil.kube.access import Access, tls_context
from speil.kube.api import KubeApi
from speil.kube.exec_credential import run_plugin
from speil.kube.in_cluster import InClusterAccess
from speil.kube.kubeconfig import KubeconfigAccess
from speil.lease import base, build, driver, file, kubernetes, memory
from speil.lease.driver import LeaderElection, MeshView
from speil.lease.file import FileLease
from speil.lease.kubernetes import KubernetesLease
from speil.lease.memory import MemoryLease
from speil.observe.metrics import Metrics
from speil.region.settings import RegionSettings
from speil.survey import leases, look, nodes
from speil.survey.look import ClusterSettings, SurveySettings
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.certificates import CertificateAuthority
from speil.testing.lease_conformance import RECORD
from tests.shell.lease_region import FAST, FaultyLease
from tests.shell.tls_server import tls_server

MODULES = (
    access, api, exec_credential, in_cluster, kubeconfig, node_labels, node_region,
    base, build, driver, file, kubernetes, memory, leases, look, nodes,
)  # fmt: skip
STATE = json.dumps(
    {"region": "r", "zone": "", "lease": "x", "peer_id": "p", "ready": True, "peers": [], "topology_region": ""}
)
LEASE = encode(RECORD, None, name="lease", namespace="default")
POD = {"metadata": {"name": "pod", "namespace": "default"}, "status": {"phase": "Running"}, "spec": {"nodeName": "n"}}


class Server:
    """An API server and its pods as far as they are asked here."""

    def __init__(self, url: str, authority: CertificateAuthority, folder: Path) -> None:
        self.url, self.authority, self.folder = url, authority, folder
        (folder / "ca.pem").write_bytes(authority.pem)
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": url, "certificate-authority": str(folder / "ca.pem")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    @staticmethod
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT" or request.path.endswith("/leases/lease"):
            return web.json_response(LEASE)
        if request.path.endswith("/leases"):
            return web.json_response({"message": "no"}, status=403)
        if request.path.endswith("/pods"):
            return web.json_response({"items": [POD, POD]})
        if request.path.endswith("/metrics"):
            return web.Response(text="process_start_time_seconds 1\n")
        if request.path.endswith("/debug/state"):
            return web.Response(text=STATE)
        return web.json_response({"metadata": {"labels": {"topology.kubernetes.io/region": "r"}}})

    def api(self) -> KubeApi:
        return KubeApi(Fixed(Access(self.url, tls_context(self.authority.pem))), "speil-test")


class Fixed:
    """An access that does not change."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def current(self) -> Access:
        return self._access

    def refused(self) -> None:
        pass


@dataclass(frozen=True)
class Case:
    """`covers` are names in MODULES; `make` gives a coroutine, which closes what it opens."""

    covers: str
    make: Callable[[Server], Coroutine[Any, Any, Any]]
    endless: bool = False
    suspends: bool = True  # it waits for something: a network, a process, time


async def with_api(server: Server, use: Callable[[KubeApi], Awaitable[Any]]) -> None:
    client = server.api()
    try:
        await use(client)
    finally:
        await client.close()


async def election(lock: Any) -> None:
    one = LeaderElection(lock, FAST, Owner("r"), Metrics(), Random(1))
    async with asyncio.TaskGroup() as group:
        group.create_task(one.known())
        await one.run("me", MeshView)


async def two_writes(lock: Any) -> None:
    await lock.put(RECORD, await lock.get())


def survey_in_cluster(server: Server) -> SurveySettings:
    return SurveySettings(ClusterSettings(str(server.kubeconfig)), ("a", "b"))


def survey_by_hand(server: Server) -> SurveySettings:
    return SurveySettings(ClusterSettings(), lease_files=(str(server.folder / "lease"),))


VERSION = exec_credential.API_VERSIONS[0]
CREDENTIAL = json.dumps({"kind": "ExecCredential", "apiVersion": VERSION, "status": {"token": "t"}})
PLUGIN = {"apiVersion": VERSION, "command": sys.executable, "args": ["-S", "-c", f"print({CREDENTIAL!r})"]}
SERVICE_ACCOUNT = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
FROM_NODE = RegionSettings(topology_from_node=True, node_name="n")


def service_account(server: Server) -> InClusterAccess:
    (server.folder / "token").write_text("t")
    (server.folder / "ca.crt").write_bytes(server.authority.pem)
    return InClusterAccess(server.folder, SERVICE_ACCOUNT)


CASES = (
    Case("KubeApi.request KubeApi.close", lambda server: with_api(server, lambda api: api.request("GET", "/x"))),
    Case("KubeApi.get_text KubeApi.close", lambda server: with_api(server, lambda api: api.get_text("/metrics"))),
    Case("node_labels", lambda server: with_api(server, lambda api: node_labels.node_labels(api, "n"))),
    Case(
        "identify_node KubeconfigAccess.current",
        lambda server: node_region.identify_node(FROM_NODE, KubeconfigAccess([server.kubeconfig]), server.folder),
    ),
    Case(
        "InClusterAccess.current AccessSource.current", lambda server: service_account(server).current(), suspends=False
    ),
    Case("run_plugin", lambda server: run_plugin(PLUGIN, server.folder, {})),
    Case(
        "KubernetesLease.get KubernetesLease.put KubernetesLease.close",
        lambda server: with_api(server, lambda api: two_writes(KubernetesLease(api, "lease", "default"))),
    ),
    Case("FileLease.get FileLease.put", lambda server: two_writes(FileLease(server.folder / "lease")), suspends=False),
    Case("MemoryLease.get MemoryLease.put", lambda server: two_writes(MemoryLease()), suspends=False),
    Case("LeaderElection.run MemoryLease.close", lambda server: election(MemoryLease()), endless=True),
    Case(
        "LeaderElection.run LeaderElection.known FileLease.close",
        lambda server: election(FileLease(server.folder / "lease")),
        endless=True,
    ),
    Case(
        "LeaderElection.run KubernetesLease.close LeaseLock.close LeaseLock.get LeaseLock.put",
        lambda server: election(FaultyLease(KubernetesLease(server.api(), "lease", "default"))),
        endless=True,
    ),
    Case(
        "leases_in_cluster", lambda server: with_api(server, lambda api: leases.leases_in_cluster(api, ("a", "b", "c")))
    ),
    Case("leases_in_files", lambda server: leases.leases_in_files([server.folder / "lease"]), suspends=False),
    Case("nodes_in_cluster each_node", lambda server: with_api(server, lambda api: nodes.nodes_in_cluster(api, 9090))),
    Case("nodes_at", lambda server: nodes.nodes_at(["http://127.0.0.1:1", "http://127.0.0.1:2"])),
    Case("look ClusterSettings.api", lambda server: look.look(survey_in_cluster(server))),
    Case("look", lambda server: look.look(survey_by_hand(server)), suspends=False),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.covers.replace(" ", ","))
async def test_no_child_outlives_a_cancelled_coroutine(case: Case, tmp_path: Path) -> None:
    authority = CertificateAuthority()
    (tmp_path / "tls").mkdir()
    async with tls_server(authority, tmp_path / "tls") as running:
        running.answer = Server.answer
        server = Server(running.url, authority, tmp_path)
        steps = await cancel_at_each_step(lambda: case.make(server), endless=case.endless)
    assert (steps > 0) == case.suspends


def public_coroutines(module: ModuleType) -> set[str]:
    """Names of coroutine functions that a module defines, and `Class.method`."""
    found = set()
    for name, one in vars(module).items():
        if name.startswith("_") or getattr(one, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(one):
            found |= {
                f"{name}.{method}"
                for method, function in vars(one).items()
                if inspect.iscoroutinefunction(function) and not method.startswith("_")
            }
        elif inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            found.add(name)
    return found


def test_every_public_coroutine_has_a_case() -> None:
    public = set().union(*map(public_coroutines, MODULES))
    covered = {name for case in CASES for name in case.covers.split()} - {"ClusterSettings.api"}
    assert public == covered
