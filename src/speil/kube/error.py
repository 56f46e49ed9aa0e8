"""What the Kubernetes API, or the way to it, may answer instead of what was asked for."""

from __future__ import annotations


class KubeError(Exception):
    """The API did not do what was asked; the message is for the log. Asking again may help."""


class KubeAccessError(KubeError):
    """The way to the API is not configured right, on this side: the operator has to act."""


class KubeUnreachableError(KubeError):
    """No answer: network, TLS, or a server that is away."""


class KubeUnauthorizedError(KubeError):
    """401: the server does not know the credentials (any more)."""


class KubeForbiddenError(KubeError):
    """403: the server knows who asks, and does not allow it. `verb` is what it names, "" where it names none."""

    def __init__(self, message: str, verb: str = "", *, terminating: bool = False) -> None:
        super().__init__(message)
        self.verb, self.terminating = verb, terminating  # terminating: the namespace is being deleted


class KubeNotFoundError(KubeError):
    """404: `kind` is what is missing, in the API's plural (`leases`, `namespaces`), "" where it is the path."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class KubeConflictError(KubeError):
    """409, and the 422 of a create race: the object is not what the writer thought."""
