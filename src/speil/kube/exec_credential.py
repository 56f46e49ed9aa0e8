"""Credentials from an exec plugin (`client.authentication.k8s.io/v1`), as kubectl runs them.

A cloud provider's command prints an ExecCredential: a token or a client certificate, and when it expires. The command
runs again when it has expired, or when the server has refused it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from speil.kube.error import KubeAccessError

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
EXEC_SECONDS_MAX = 60.0  # the plugin may open a browser for a login
_EARLY = timedelta(seconds=10)  # before it expires: it must not expire while a request is under way
_OUTPUT_CHARS_MAX = 300  # of the plugin's stderr


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """What a plugin printed: a token ("" where there is none), or a certificate and its key in PEM."""

    token: str
    certificate: bytes | None
    key: bytes | None
    expires: datetime | None

    def valid(self, now: datetime) -> bool:
        """Whether it does not expire within ten seconds after `now`."""
        return self.expires is None or now + _EARLY < self.expires


async def run_plugin(plugin: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any]) -> ExecCredential:
    """Run the `plugin` entry of a kubeconfig in `folder`, for its `cluster` entry. Raises KubeAccessError.

    The process is killed when it takes longer than EXEC_SECONDS_MAX, and when the caller is cancelled.
    """
    version = plugin.get("apiVersion")
    if version not in API_VERSIONS:
        raise KubeAccessError(f"the exec plugin's apiVersion {version!r} is not known: use {API_VERSIONS[0]}")
    command = _command(str(plugin.get("command", "")), folder, str(plugin.get("installHint", "")))
    environ = dict(os.environ)
    for item in plugin.get("env") or ():
        environ[str(item["name"])] = str(item["value"])
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = dict(cluster)
    environ["KUBERNETES_EXEC_INFO"] = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
    output = await _run([command, *map(str, plugin.get("args") or ())], environ)
    return _parse(command, output, str(version))


def _command(command: str, folder: Path, hint: str) -> str:
    """As kubectl does: a path is relative to the kubeconfig, a plain name is looked up in PATH."""
    found = shutil.which(str(folder / command)) if "/" in command else shutil.which(command)
    if not command or found is None:
        raise KubeAccessError(f"the exec plugin {command!r} was not found{': ' + hint if hint else ''}")
    return found


async def _run(argv: list[str], environ: Mapping[str, str]) -> bytes:
    devnull, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=devnull, stdout=pipe, stderr=pipe, env=environ)
    except OSError as error:
        raise KubeAccessError(f"the exec plugin {argv[0]} can't be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(EXEC_SECONDS_MAX):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise KubeAccessError(f"the exec plugin {argv[0]} took more than {EXEC_SECONDS_MAX:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = " ".join(complaint.decode("utf-8", "replace").split())[:_OUTPUT_CHARS_MAX]
        raise KubeAccessError(f"the exec plugin {argv[0]} failed with code {process.returncode}: {said}")
    return output


def _parse(command: str, output: bytes, version: str) -> ExecCredential:
    try:
        document = json.loads(output)
        status = document["status"]
        if document.get("kind") != "ExecCredential" or document.get("apiVersion") != version:
            raise KubeAccessError(
                f"the exec plugin {command} printed something other than an ExecCredential of {version}"
            )
        token = str(status.get("token") or "")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        expires = status.get("expirationTimestamp")
        credential = ExecCredential(
            token,
            certificate.encode() if certificate else None,
            key.encode() if key else None,
            datetime.fromisoformat(expires).astimezone(UTC) if expires else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # the output may hold a credential: it must not get into a message
        raise KubeAccessError(f"the exec plugin {command} printed no valid ExecCredential") from error
    if not credential.token and not (credential.certificate and credential.key):
        raise KubeAccessError(
            f"the exec plugin {command} printed neither a token nor a client certificate with its key"
        )
    return credential
