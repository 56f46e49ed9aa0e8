"""What goes wrong between peers, by who has to act."""


class Libp2pError(Exception):
    """A connection or stream failed. Another peer may work."""


class PeerMisbehavedError(Libp2pError):
    """The peer broke the protocol: close the connection and count it. `reason` is the label of the metric."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class PeerUnreachableError(Libp2pError):
    """No address of the peer answered, or the handshake did not end in time: try another peer, or later."""


class ProtocolNotSupportedError(Libp2pError):
    """The peer does not speak the protocol: do not ask it again."""


class ConnectionClosedError(Libp2pError):
    """The connection ended during the call: dial again, or try another peer."""


class StreamResetError(Libp2pError):
    """The peer or this node reset the stream: the request failed, the connection is still up."""


class RefusedError(Libp2pError):
    """A rule of this node refused the address or the peer. `layer` names the rule."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"refused by {layer}")
        self.layer = layer


class PeerRefusedError(RefusedError):
    """A rule of this node refused the peer at the other end of the connection: close the connection."""


class OwnLimitError(Libp2pError):
    """This node reached a limit of its own and sent nothing. The peer did not fail."""
