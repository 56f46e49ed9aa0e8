"""A Lease of the Kubernetes API.

It is created and updated by PUT alone. An update carries the version that was read. A PUT to a Lease that does not
exist creates it and, unlike a POST, obeys a Role's resourceNames: so a Role can allow a region its own Lease and
nothing else.
"""

from __future__ import annotations

from speil.election.record import LeaderElectionRecord, Lease, decode, encode
from speil.kube.api import KubeAnswer, KubeApi
from speil.kube.error import (
    KubeAccessError,
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    KubeUnauthorizedError,
)
from speil.lease.base import LeaseConflictError, LeaseDeniedError, LeaseError


class KubernetesLease:
    """See LeaseLock. The lock owns `api` and closes it."""

    def __init__(self, api: KubeApi, name: str, namespace: str) -> None:
        self._api, self._name, self._namespace = api, name, namespace
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"

    def __str__(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def get(self) -> Lease | None:
        """See LeaseLock."""
        try:
            return _lease(await self._api.request("GET", self._path))
        except KubeNotFoundError as error:
            if error.kind == "leases":
                return None
            raise self._lease_error(error, "get") from error
        except KubeError as error:
            raise self._lease_error(error, "get") from error

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        """See LeaseLock."""
        document = encode(record, base, name=self._name, namespace=self._namespace)
        try:
            return _lease(await self._api.request("PUT", self._path, document))
        except KubeError as error:
            raise self._lease_error(error, "update") from error

    async def close(self) -> None:
        """See LeaseLock."""
        await self._api.close()

    def _lease_error(self, error: KubeError, verb: str) -> LeaseError:
        """The error for the election, with what the operator has to do."""
        where = f"the Lease {self._name} in namespace {self._namespace}"
        match error:
            case KubeConflictError():
                return LeaseConflictError(str(error))
            case KubeForbiddenError() if error.terminating:
                return LeaseDeniedError(f"namespace {self._namespace} is being deleted, with the Lease {self._name}")
            case KubeForbiddenError():
                return LeaseDeniedError(
                    f"not allowed to {error.verb or verb} {where}: a Role there has to allow get, create and update "
                    f"of leases with resourceName {self._name}. {error}"
                )
            case KubeNotFoundError(kind="namespaces"):
                return LeaseDeniedError(
                    f"namespace {self._namespace} does not exist: create it, or set --leader-election-namespace"
                )
            case KubeAccessError():
                return LeaseDeniedError(str(error))
            case KubeUnauthorizedError():
                return LeaseError(f"the API server does not accept this node's credentials for {where}. {error}")
        return LeaseError(str(error))


def _lease(answer: KubeAnswer) -> Lease:
    return decode(answer.document, answer.served_at)
