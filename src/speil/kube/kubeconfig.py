"""An access from a kubeconfig with its contexts, as kubectl reads it.

Several files count as one: the first that has an entry wins (the rule of the KUBECONFIG variable). The YAML library is
imported only for files that are not JSON, so a node in a cluster never loads it. The files are read again when one of
them changed.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speil.kube.access import Access, AccessSource, read_file, tls_context
from speil.kube.error import KubeAccessError
from speil.kube.exec_credential import ExecCredential, run_plugin
from speil.kube.in_cluster import InClusterAccess


def default_paths(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that kubectl reads: $KUBECONFIG, else ~/.kube/config."""
    named = [Path(item) for item in environ.get("KUBECONFIG", "").split(os.pathsep) if item]
    return named or [Path(environ.get("HOME", "/")) / ".kube" / "config"]


def context_names(paths: Sequence[Path]) -> list[str]:
    """The contexts of kubeconfigs, those of the first file first, each once. Raises KubeAccessError."""
    contexts = [entry for path in paths if path.exists() for entry in _parse(path).get("contexts") or ()]
    return list(dict.fromkeys(str(entry["name"]) for entry in contexts if isinstance(entry, dict) and "name" in entry))


def access_of_node(path: str, context: str = "") -> AccessSource:
    """A node's access: the kubeconfig at `path`; a pod's ServiceAccount where `path` is empty. Reads nothing yet."""
    return KubeconfigAccess([Path(path)], context) if path else InClusterAccess()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cluster, user or context, and the folder that its relative paths are relative to."""

    fields: Mapping[str, Any]
    folder: Path

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def data(self, key: str, what: str) -> bytes | None:
        """`<key>-data` in base64, else the file that `<key>` names."""
        if encoded := self.text(f"{key}-data"):
            try:
                return base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise KubeAccessError(f"the kubeconfig's {key}-data is not base64") from error
        return read_file(self.folder / path, what) if (path := self.text(key)) else None


class KubeconfigAccess:
    """See AccessSource. `context` "" is the current one."""

    def __init__(self, paths: Sequence[Path], context: str = "") -> None:
        self._paths, self._context = tuple(paths), context
        self._stamp: tuple[object, ...] = ()
        self._cluster = self._user = _Entry({}, Path())
        self._tls: tuple[tuple[object, ...], ssl.SSLContext] | None = None
        self._credential: ExecCredential | None = None

    async def current(self) -> Access:
        """See AccessSource."""
        self._load()
        cluster, user = self._cluster, self._user
        certificate = user.data("client-certificate", "the client certificate")
        key = user.data("client-key", "the client certificate's key")
        token = user.text("token")
        if path := user.text("tokenFile"):
            token = read_file(user.folder / path, "the token file").decode("ascii", "replace").strip()
        if isinstance(plugin := user.fields.get("exec"), dict):
            credential = await self._exec(plugin)
            token = credential.token
            if credential.certificate:
                certificate, key = credential.certificate, credential.key
        if user.fields.get("auth-provider"):
            raise KubeAccessError("the kubeconfig's auth-provider is not supported: use an exec plugin")
        server = cluster.text("server").rstrip("/")
        if not server.startswith(("https://", "http://")):
            raise KubeAccessError(f"the kubeconfig's server {server!r} is not a URL: it must start with https://")
        if cluster.fields.get("proxy-url"):
            raise KubeAccessError(
                "the kubeconfig's proxy-url is not supported: use a server address that is reached directly"
            )
        tls = self._context_for(cluster.data("certificate-authority", "the cluster's CA certificate"), certificate, key)
        return Access(server, tls, f"Bearer {token}" if token else "", cluster.text("tls-server-name"))

    def refused(self) -> None:
        """See AccessSource: the plugin is run again."""
        self._credential = None

    async def _exec(self, plugin: Mapping[str, Any]) -> ExecCredential:
        if self._credential is None or not self._credential.valid(datetime.now(UTC)):
            self._credential = await run_plugin(plugin, self._user.folder, self._cluster.fields)
        return self._credential

    def _context_for(self, ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
        """The context for these bytes. While they stay the same it is the same object, so that connections are kept."""
        insecure = self._cluster.fields.get("insecure-skip-tls-verify") is True
        made_of = (ca, certificate, key, insecure)
        if self._tls is None or self._tls[0] != made_of:
            context = tls_context(ca, certificate, key)
            if insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._tls = made_of, context
        return self._tls[1]

    def _load(self) -> None:
        """Read the files, if one of them changed, and pick cluster and user."""
        stamp = tuple(_stamp(path) for path in self._paths)
        if stamp == self._stamp:
            return
        documents = [(_parse(path), path.parent) for path in self._paths if path.exists() or len(self._paths) == 1]
        current = next((name for document, _ in documents if (name := document.get("current-context"))), "")
        if not (name := self._context or current):
            raise KubeAccessError(f"the kubeconfig {self._names} has no current context: set --context")
        context = _named(documents, "contexts", "context", str(name))
        self._cluster = _named(documents, "clusters", "cluster", context.text("cluster"))
        self._user = _named(documents, "users", "user", context.text("user"))
        self._stamp, self._credential = stamp, None

    @property
    def _names(self) -> str:
        return os.pathsep.join(map(str, self._paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _parse(path: Path) -> Mapping[str, Any]:
    data = read_file(path, "the kubeconfig")
    try:
        document = json.loads(data)
    except ValueError:
        document = _parse_yaml(path, data)
    if not isinstance(document, dict):
        raise KubeAccessError(f"the kubeconfig {path} is not a mapping")
    return document


def _parse_yaml(path: Path, data: bytes) -> object:
    import yaml  # costs memory that a node in a cluster need not pay

    try:
        document: object = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise KubeAccessError(f"the kubeconfig {path} is not valid YAML: {' '.join(str(error).split())}") from error
    return document


def _named(documents: Sequence[tuple[Mapping[str, Any], Path]], group: str, kind: str, name: str) -> _Entry:
    """The first entry of that name. Raises KubeAccessError that lists those there are."""
    names = []
    for document, folder in documents:
        entries = document.get(group)
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            if entry.get("name") == name:
                fields = entry.get(kind)
                return _Entry(fields if isinstance(fields, dict) else {}, folder)
            names.append(str(entry.get("name")))
    there = f"there are {', '.join(names)}" if names else "it has none"
    raise KubeAccessError(f"the kubeconfig has no {kind} {name!r}: {there}")
