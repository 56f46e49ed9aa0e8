"""How a pod and a person reach the API: files that change, contexts, certificates, exec plugins; over real TLS."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speil.kube.access import AccessSource
from speil.kube.api import KubeApi
from speil.kube.error import KubeAccessError, KubeUnauthorizedError, KubeUnreachableError
from speil.kube.in_cluster import InClusterAccess
from speil.kube.kubeconfig import KubeconfigAccess, default_paths
from speil.testing.certificates import CertificateAuthority
from tests.properties import examples
from tests.shell.tls_server import TlsServer, tls_server


@asynccontextmanager
async def api(access: AccessSource) -> AsyncIterator[KubeApi]:
    """A client, closed afterwards."""
    client = KubeApi(access, "test")
    try:
        yield client
    finally:
        await client.close()


class Pod:
    """A ServiceAccount's volume and the environment of a pod."""

    def __init__(self, folder: Path, authority: CertificateAuthority, server: TlsServer) -> None:
        self.folder = folder / "serviceaccount"
        self.folder.mkdir()
        self.token("one")
        self.ca(authority)
        self.environ: dict[str, str] = {}
        self.at(server)
        self.access = InClusterAccess(self.folder, self.environ)

    def token(self, token: str) -> None:
        (self.folder / "token").write_text(f"{token}\n")

    def ca(self, authority: CertificateAuthority) -> None:
        (self.folder / "ca.crt").write_bytes(authority.pem)

    def at(self, server: TlsServer) -> None:
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        self.environ |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


async def test_a_pod_speaks_with_the_token_that_is_on_disk_now(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:
        pod = Pod(tmp_path, authority, server)
        async with api(pod.access) as client:
            await client.request("GET", "/version")
            pod.token("two")
            await client.request("GET", "/version")
        assert server.authorizations == ["Bearer one", "Bearer two"]


async def test_a_pod_follows_a_new_ca_and_a_new_address(tmp_path: Path) -> None:
    old, new = CertificateAuthority("old"), CertificateAuthority("new")
    async with tls_server(old, tmp_path) as first, tls_server(new, tmp_path) as second:
        pod = Pod(tmp_path, old, first)
        async with api(pod.access) as client:
            await client.request("GET", "/version")
            pod.at(second)
            with pytest.raises(KubeUnreachableError, match="certificate verify failed"):
                await client.request("GET", "/version")
            pod.ca(new)
            await client.request("GET", "/version")
        assert (len(first.authorizations), len(second.authorizations)) == (1, 1)


async def test_outside_a_pod_and_with_a_damaged_volume_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KubeAccessError, match="--kubeconfig-path"):
        await InClusterAccess(tmp_path, {}).current()
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(KubeAccessError, match="token"):
        await InClusterAccess(tmp_path, environ).current()
    (tmp_path / "token").write_text("x")
    (tmp_path / "ca.crt").write_text("not PEM")
    with pytest.raises(KubeAccessError, match="CA certificate"):
        await InClusterAccess(tmp_path, environ).current()
    (tmp_path / "ca.crt").write_bytes(CertificateAuthority().pem)
    assert (await InClusterAccess(tmp_path, environ).current()).server == "https://[fd00::1]:443"


# --- kubeconfig --------------------------------------------------------------------------------------------


def config(server: str, authority: CertificateAuthority, user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """A kubeconfig with one context."""
    ca = base64.b64encode(authority.pem).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority-data": ca, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }


def written(path: Path, document: dict[str, Any], *, as_yaml: bool = False) -> Path:
    """A kubeconfig file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document) if as_yaml else json.dumps(document))
    return path


@pytest.mark.parametrize("as_yaml", [False, True])
async def test_the_current_context_and_another_one(tmp_path: Path, as_yaml: bool) -> None:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:
        document = config(server.url, authority, {"token": "first"})
        document["users"].append({"name": "v", "user": {"tokenFile": "tokens/second"}})
        document["contexts"].append({"name": "d", "context": {"cluster": "k", "user": "v"}})
        path = written(tmp_path / "kube" / "config", document, as_yaml=as_yaml)
        (path.parent / "tokens").mkdir()
        (path.parent / "tokens" / "second").write_text("from file\n")
        async with api(KubeconfigAccess([path])) as one, api(KubeconfigAccess([path], "d")) as other:
            await one.request("GET", "/")
            await other.request("GET", "/")
        assert server.authorizations == ["Bearer first", "Bearer from file"]
        with pytest.raises(KubeAccessError, match="no context 'e': there are c, d"):
            await KubeconfigAccess([path], "e").current()


async def test_a_client_certificate_by_path_and_by_value(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    pair = authority.issue_client("alice", "system:masters")
    (tmp_path / "alice.crt").write_bytes(pair.certificate)
    (tmp_path / "alice.key").write_bytes(pair.key)
    users = [
        {"client-certificate": "alice.crt", "client-key": "alice.key"},
        {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        },
    ]
    async with tls_server(authority, tmp_path, trust=authority) as server:
        for number, user in enumerate(users):
            path = written(tmp_path / f"config{number}", config(server.url, authority, user))
            async with api(KubeconfigAccess([path])) as client:
                await client.request("GET", "/")
        assert server.clients == ["alice", "alice"]


async def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:
        path = written(tmp_path / "config", config(server.url, authority, {"token": "a"}))
        async with api(KubeconfigAccess([path])) as client:
            await client.request("GET", "/")
            written(path, config(server.url, authority, {"token": "longer"}))
            await client.request("GET", "/")
        assert server.authorizations == ["Bearer a", "Bearer longer"]


async def test_several_files_count_as_one(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path) as server:
        whole = config(server.url, authority, {"token": "of the second"})
        first = {"current-context": "mine", "contexts": [{"name": "mine", "context": {"cluster": "k", "user": "u"}}]}
        paths = [written(tmp_path / "a", first), tmp_path / "missing", written(tmp_path / "b", whole)]
        async with api(KubeconfigAccess(paths)) as client:
            await client.request("GET", "/")
        assert server.authorizations == ["Bearer of the second"]


async def test_the_name_to_check_and_no_check(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    async with tls_server(authority, tmp_path, "kubernetes.default.svc") as server:
        named = config(server.url, authority, {"token": "a"}, **{"tls-server-name": "kubernetes.default.svc"})
        unchecked = config(server.url, CertificateAuthority(), {"token": "b"}, **{"insecure-skip-tls-verify": True})
        plain = config(server.url, authority, {"token": "c"})
        for number, document in enumerate((named, unchecked)):
            async with api(KubeconfigAccess([written(tmp_path / f"c{number}", document)])) as client:
                await client.request("GET", "/")
        async with api(KubeconfigAccess([written(tmp_path / "c", plain)])) as client:
            with pytest.raises(KubeUnreachableError, match="certificate"):
                await client.request("GET", "/")
        assert server.authorizations == ["Bearer a", "Bearer b"]


def plugin(folder: Path, body: str, **fields: Any) -> dict[str, Any]:
    """A user with an exec plugin: a script in `folder`, named relative to the kubeconfig."""
    script = folder / "plugin"
    script.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    script.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", **fields}}


COUNTING = """
path = os.environ["COUNT_FILE"]
count = int(open(path).read()) + 1 if os.path.exists(path) else 1
open(path, "w").write(str(count))
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status":
    {"token": f"t{count}", "expirationTimestamp": os.environ.get("EXPIRES") or None}}))
"""


async def test_an_exec_plugin_runs_once_until_its_credential_ends_or_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    environ = [{"name": "COUNT_FILE", "value": str(tmp_path / "count")}, {"name": "EXPIRES", "value": later}]
    async with tls_server(authority, tmp_path) as server:
        path = written(tmp_path / "config", config(server.url, authority, plugin(tmp_path, COUNTING, env=environ)))
        async with api(KubeconfigAccess([path])) as client:
            await client.request("GET", "/")
            await client.request("GET", "/")

            async def refuse(_: web.Request) -> web.StreamResponse:
                return web.json_response({"message": "Unauthorized"}, status=401)

            usual, server.answer = server.answer, refuse
            with pytest.raises(KubeUnauthorizedError):
                await client.request("GET", "/")
            server.answer = usual
            await client.request("GET", "/")
        assert server.authorizations == ["Bearer t1", "Bearer t1", "Bearer t1", "Bearer t2"]
        environ[1]["value"] = "2020-01-01T00:00:00Z"
        written(path, config(server.url, authority, plugin(tmp_path, COUNTING, env=environ)))
        async with api(KubeconfigAccess([path])) as client:
            await client.request("GET", "/")
            await client.request("GET", "/")
        assert server.authorizations[-2:] == ["Bearer t3", "Bearer t4"]


async def test_an_exec_plugin_gets_its_arguments_and_the_cluster_and_may_give_a_certificate(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    pair = authority.issue_client("from-plugin")
    (tmp_path / "pair.json").write_text(json.dumps([pair.certificate.decode(), pair.key.decode()]))
    body = """
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["spec"]["cluster"]["server"].startswith("https://"), info
assert info["spec"]["interactive"] is False
certificate, key = json.load(open(sys.argv[1]))
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status":
    {"clientCertificateData": certificate, "clientKeyData": key}}))
"""
    user = plugin(tmp_path, body, args=[str(tmp_path / "pair.json")], provideClusterInfo=True)
    async with tls_server(authority, tmp_path, trust=authority) as server:
        path = written(tmp_path / "config", config(server.url, authority, user))
        async with api(KubeconfigAccess([path])) as client:
            await client.request("GET", "/")
        assert (server.clients, server.authorizations) == (["from-plugin"], [""])


@pytest.mark.parametrize(
    ("body", "fields", "said"),
    [
        ("sys.exit('log in first')", {}, "failed with code 1: log in first"),
        ("print('hello')", {}, "no valid ExecCredential"),
        ("print('{}')", {}, "no valid ExecCredential"),
        ("print(json.dumps({'kind': 'Pod', 'status': {}}))", {}, "other than an ExecCredential"),
        ("pass", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion"),
        ("pass", {"command": "no-such-plugin-anywhere", "installHint": "get it at example.org"}, "get it at example"),
    ],
)
async def test_a_plugin_that_fails_is_named(tmp_path: Path, body: str, fields: dict[str, str], said: str) -> None:
    document = config("https://127.0.0.1:1", CertificateAuthority(), plugin(tmp_path, body, **fields))
    with pytest.raises(KubeAccessError, match=said):
        await KubeconfigAccess([written(tmp_path / "config", document)]).current()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"current-context": ""}, "no current context"),
        ({"clusters": None}, "no cluster 'k': it has none"),
        ({"users": [1, {}]}, "no user 'u'"),
        ({"clusters": [{"name": "k", "cluster": {"server": "ftp://x"}}]}, "not a URL"),
        ({"clusters": [{"name": "k", "cluster": {"server": "https://x", "proxy-url": "http://p"}}]}, "proxy-url"),
        ({"users": [{"name": "u", "user": {"client-key-data": "%"}}]}, "not base64"),
        ({"users": [{"name": "u", "user": {"auth-provider": {"name": "gcp"}}}]}, "exec plugin"),
        ({"users": [{"name": "u", "user": {"tokenFile": "missing"}}]}, "missing can't be read"),
    ],
)
async def test_what_is_wrong_with_a_kubeconfig_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    document = config("https://127.0.0.1:1", CertificateAuthority(), {"token": "x"}) | change
    with pytest.raises(KubeAccessError, match=said):
        await KubeconfigAccess([written(tmp_path / "config", document)]).current()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(40))
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
async def test_any_file_is_a_kubeconfig_or_an_access_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config"
    path.write_bytes(data)
    with pytest.raises(KubeAccessError):
        await KubeconfigAccess([path]).current()


def test_the_default_is_kubectls() -> None:
    assert default_paths({"HOME": "/home/a"}) == [Path("/home/a/.kube/config")]
    assert default_paths({"KUBECONFIG": os.pathsep.join(["/a", "", "/b"])}) == [Path("/a"), Path("/b")]
