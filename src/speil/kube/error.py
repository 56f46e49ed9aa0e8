"""Errors of requests to the Kubernetes API, by what the caller can do about them."""

from __future__ import annotations


class KubeError(Exception):
    """The request failed. The message is for the log and names the server. Trying again may help."""


class KubeAccessError(KubeError):
    """This node's access to the API is misconfigured: the operator has to act."""


class KubeUnreachableError(KubeError):
    """No response: network, TLS, or a server that is down."""


class KubeUnauthorizedError(KubeError):
    """401: the server does not accept the credentials."""


class KubeForbiddenError(KubeError):
    """403: a Role is missing. `verb` is the one that the server names ("" where none).

    `terminating`: the namespace is being deleted.
    """

    def __init__(self, message: str, verb: str = "", *, terminating: bool = False) -> None:
        super().__init__(message)
        self.verb, self.terminating = verb, terminating


class KubeNotFoundError(KubeError):
    """404: `kind` is what does not exist, in the plural (`leases`, `namespaces`); "" where the path is unknown."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class KubeConflictError(KubeError):
    """409, and the 422 when two clients create the same object: it has changed since it was read."""


class KubeTooManyRequestsError(KubeError):
    """429: the server, or the pod behind its proxy, has too many requests now. The same request later may succeed."""
