"""A client of the Kubernetes API: one request, one typed answer.

JSON in, JSON out; `error` has a class for each thing that a caller can do about a failure. Connections are kept while
the access stays the same. Callers set their own timeout with `asyncio.timeout`; REQUEST_SECONDS_MAX is the bound for
those that do not.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from speil.http1.client import Answer, AnswerTooLargeError, HttpClient, HttpError, NoAnswerError
from speil.kube.access import Access, AccessSource
from speil.kube.error import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    KubeTooManyRequestsError,
    KubeUnauthorizedError,
    KubeUnreachableError,
)
from speil.local_file import parse_json

REQUEST_SECONDS_MAX = 30.0
ANSWER_BYTES_MAX = 32 << 20  # a list of five thousand nodes
IDLE_SECONDS_MAX = 15.0  # a leader sends one every two; a follower of a large region keeps no connection
CONNECTIONS_MAX = 2
_MESSAGE_CHARS_MAX = 400
_CANNOT = re.compile(r"cannot (\w+) resource")


@dataclass(frozen=True, slots=True)
class KubeAnswer:
    """A response's JSON object, and its Date header (None where it has none)."""

    document: Mapping[str, Any]
    served_at: datetime | None


class KubeApi:
    """Sends requests with the access that `access` returns. The owner closes it."""

    def __init__(
        self,
        access: AccessSource,
        user_agent: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_seconds_max: float = REQUEST_SECONDS_MAX,
    ) -> None:
        self._access, self._user_agent = access, user_agent
        self._connections_max, self._request_seconds_max = connections_max, request_seconds_max
        self._client: HttpClient | None = None
        self._client_of: tuple[str, ssl.SSLContext] | None = None

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> KubeAnswer:
        """Send a request for `path` (`/apis/…`) with `body` as JSON. Raises KubeError or a class derived from it."""
        fields = dict(headers or {}) | ({"Content-Type": content_type} if body is not None else {})
        data, served_at = await self._send(method, path, body, params, fields)
        return KubeAnswer(_document(data), served_at)

    async def get_text(self, path: str) -> str:
        """GET a page that is not JSON, such as a pod's metrics through the API server's proxy. Raises KubeError."""
        data, _ = await self._send("GET", path, None, None, {})
        return data.decode("utf-8", "replace")

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> tuple[bytes, datetime | None]:
        access = await self._access.current()
        answer = await self._ask(access, method, path, body, params, headers)
        if answer.status < 300:
            return answer.body, _date(answer.headers.get("Date", ""))
        if answer.status == 401:
            self._access.refused()
        raise _error(answer.status, _document(answer.body), access.server)

    async def _ask(
        self,
        access: Access,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        client = await self._client_for(access)
        if access.authorization:
            headers = {**headers, "Authorization": access.authorization}
        try:
            return await client.request(
                method,
                access.server + path,
                params=params,
                headers=headers,
                body=json.dumps(body).encode() if body is not None else b"",
                server_hostname=access.tls_server_name,
                answer_bytes_max=ANSWER_BYTES_MAX,
            )
        except AnswerTooLargeError as error:
            raise KubeError(str(error)) from error
        except NoAnswerError as error:
            raise KubeUnreachableError(
                f"{access.server} did not answer within {self._request_seconds_max:.0f} s"
            ) from error
        except HttpError as error:
            raise KubeUnreachableError(str(error)) from error

    async def close(self) -> None:
        """Close the connections. A later request opens new ones."""
        client, self._client, self._client_of = self._client, None, None
        if client is not None:
            await client.close()

    async def _client_for(self, access: Access) -> HttpClient:
        of = access.server, access.tls
        if self._client is None or self._client_of != of:
            await self.close()
            self._client = HttpClient(
                timeout_seconds=self._request_seconds_max,
                tls=access.tls,
                headers={"Accept": "application/json, */*;q=0.5", "User-Agent": self._user_agent},
                connections_max=self._connections_max,
                idle_seconds_max=IDLE_SECONDS_MAX,
            )
            self._client_of = of
        return self._client


def _document(data: bytes) -> Mapping[str, Any]:
    """The JSON object; for anything else (a proxy's error page) a Status with its first words."""
    try:
        document = parse_json(data)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return {"message": " ".join(data[:_MESSAGE_CHARS_MAX].decode("utf-8", "replace").split())}


def _date(text: str) -> datetime | None:
    """The time in a `Date` header, with its zone: an HTTP date is in UTC, whatever zone it names (RFC 9110, 5.6.7)."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _error(status: int, answer: Mapping[str, Any], server: str) -> KubeError:
    """The kind of error for a `Status` (Kubernetes API conventions, "Response Status Kind")."""
    message = f"{server}: {str(answer.get('message') or 'no reason given')[:_MESSAGE_CHARS_MAX]} ({status})"
    details = answer.get("details")
    details = details if isinstance(details, dict) else {}
    match status:
        case 401:
            return KubeUnauthorizedError(message)
        case 403:
            causes = details.get("causes")
            reasons = [cause.get("reason") for cause in causes or () if isinstance(cause, dict)]
            verb = _CANNOT.search(message)
            return KubeForbiddenError(message, verb[1] if verb else "", terminating="NamespaceTerminating" in reasons)
        case 404:
            return KubeNotFoundError(message, str(details.get("kind") or ""))
        case 409:
            return KubeConflictError(message)
        case 429:
            return KubeTooManyRequestsError(message)
        case 422 if "must be specified for an update" in message:
            return KubeConflictError(message)  # an update without a version: another client created it first
    return KubeError(message)
