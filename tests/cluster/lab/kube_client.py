"""Requests to the API server, as JSON. Tests read a lot of state, and a kubectl process takes 0.1 s of CPU."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

REQUEST_SECONDS_MAX = 30.0
_GROUPS = {
    "pods": "/api/v1",
    "nodes": "/api/v1",
    "namespaces": "/api/v1",
    "secrets": "/api/v1",
    "events": "/api/v1",
    "services": "/api/v1",
    "daemonsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}


class KubeClient:
    """With a token, from the network namespace that its caller is in."""

    def __init__(self, host: str, port: int, token: str, tls: ssl.SSLContext) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Status and body of the response. Raises OSError where there is none."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=REQUEST_SECONDS_MAX, context=self._tls)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**self._headers, "Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether the API server is, and has made its namespaces."""
        return all(self.request("GET", path)[0] == 200 for path in ("/readyz", "/api/v1/namespaces/default"))

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
        """The document of a response. Raises AssertionError where the API server refused."""
        status, said = self.request(method, path, body, kind)
        assert status < 300, f"{method} {path}: {status} {said[:500].decode()}"
        return dict(json.loads(said))

    def find(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object; None where there is none."""
        status, said = self.request("GET", f"{_path(kind, namespace)}/{name}")
        assert status in (200, 404), said
        return dict(json.loads(said)) if status == 200 else None

    def list(self, kind: str, namespace: str = "", **selectors: str) -> list[dict[str, Any]]:
        """All of a kind, of one namespace or of all: labelSelector, fieldSelector."""
        items: list[dict[str, Any]] = self.call("GET", f"{_path(kind, namespace)}?{urlencode(selectors)}")["items"]
        return items

    def create(self, kind: str, namespace: str, body: Any) -> dict[str, Any]:
        """Make an object."""
        return self.call("POST", _path(kind, namespace), body)

    def patch(self, kind: str, namespace: str, name: str, body: Any) -> dict[str, Any]:
        """Merge into an object; None takes a key away."""
        return self.call("PATCH", f"{_path(kind, namespace)}/{name}", body, "application/merge-patch+json")

    def delete(self, kind: str, namespace: str, name: str, seconds: int | None = None) -> None:
        """Remove an object; `seconds` is the grace of a pod. One that is not there is left so."""
        query = "" if seconds is None else f"?gracePeriodSeconds={seconds}"
        status, said = self.request("DELETE", f"{_path(kind, namespace)}/{name}{query}")
        assert status < 300 or status == 404, said

    def messages(self, namespace: str, **of: str) -> Iterator[str]:
        """Type, reason and message of events, such as `name="a-pod"`."""
        fields = ",".join(f"involvedObject.{key}={value}" for key, value in of.items())
        for event in self.list("events", namespace, fieldSelector=fields):
            yield f"{event['type']} {event['reason']}: {event.get('message', '')}"


def _path(kind: str, namespace: str) -> str:
    return f"{_GROUPS[kind]}/namespaces/{namespace}/{kind}" if namespace else f"{_GROUPS[kind]}/{kind}"
