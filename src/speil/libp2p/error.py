"""What goes wrong between peers, by who has to act."""


class Libp2pError(Exception):
    """A connection or stream failed; another peer may do."""


class PeerMisbehavedError(Libp2pError):
    """The peer broke the protocol: close, count, and don't blame the network. `reason` is the metric's label."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class PeerUnreachableError(Libp2pError):
    """No address of the peer answered, or the handshake did not end in time: try another peer, or later."""


class ProtocolNotSupportedError(Libp2pError):
    """The peer does not speak that protocol: don't ask again."""


class ConnectionClosedError(Libp2pError):
    """The connection ended under us: dial again, or try another peer."""


class StreamResetError(Libp2pError):
    """The peer reset the stream (or we did): the request failed, the connection lives."""


class RefusedError(Libp2pError):
    """Our own gate refused the peer (`layer` says which rule)."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"refused by {layer}")
        self.layer = layer


class OwnLimitError(Libp2pError):
    """A bound of ours was reached before the peer was asked anything: it did not fail."""
