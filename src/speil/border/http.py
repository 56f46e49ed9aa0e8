"""The border at the registry port: which headers requests and responses between nodes must carry.

A request of a peer (`X-Spegel-Mirrored`) carries its region, its topology label and, where the region has a secret, a
token for this one request; the response carries a proof (`region.proof`). The label has a header of its own, which
older nodes ignore. A client on the node (containerd) sends the node token from hosts.toml, where the region has a
secret. A request that fails these checks gets an empty 404, as for content that is missing: a challenge would make
containerd send the user's registry credentials. A response without a proof is discarded, whatever its status.

Nodes with the same basic auth and no secret prove themselves to each other in the same way, with keys derived from the
credentials: a password is never sent to a peer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from speil.border.node_token_file import NodeTokenFile
from speil.border.record import BorderRecord
from speil.border.secret_file import SecretFile
from speil.border.token_window import TokenWindow
from speil.multiformats.peer_id import PeerId
from speil.region.policy import Layer, Policy
from speil.region.proof import PROOF_HEADER, bound, proves, sign_answer
from speil.region.secret import PeerKeys
from speil.region.token import NONCE_CHARS, Request, RequestTokens, sign_request, signer_of

MIRRORED_HEADER = "X-Spegel-Mirrored"
REGION_HEADER, ZONE_HEADER = "X-Speil-Region", "X-Speil-Zone"
LABEL_HEADER = "X-Speil-Topology-Region"
TOKEN_HEADER, NODE_TOKEN_HEADER = "X-Speil-Token", "X-Speil-Node-Token"


def is_peer(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a peer. Such a request is never relayed."""
    return headers.get(MIRRORED_HEADER, "").lower() == "true"


@dataclass(frozen=True, slots=True)
class Visit:
    """An accepted request. `token` and `key` are those of a peer that proved that it belongs to the region."""

    token: str = field(default="", repr=False)
    key: bytes | None = field(default=None, repr=False)

    @property
    def is_proven(self) -> bool:
        """Whether it is a peer's request with a valid token."""
        return self.key is not None

    def proof(self, status: int, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The proof header of the response; empty where the request proved nothing."""
        if self.key is None:
            return {}
        return {PROOF_HEADER: sign_answer(self.key, self.token, status, bound(headers))}


def _no_keys() -> PeerKeys | None:
    return None


class HttpDoor:
    """Checks and makes the headers of requests and responses between nodes."""

    def __init__(
        self,
        policy: Policy,
        local: PeerId,
        secret: SecretFile | None,
        record: BorderRecord,
        zone: str = "",
        *,
        credentials: Callable[[], PeerKeys | None] = _no_keys,
        node_tokens: NodeTokenFile | None = None,
        data_dir: Path | None = None,
    ) -> None:
        """`local` is this node; `secret` is None where the region has none.

        credentials: gives the keys made from basic auth, None while it is off.
        node_tokens: checks the tokens of clients on this node.
        data_dir: keeps what must survive a restart (`TokenWindow`).
        """
        self._policy, self._local, self._secret, self._record = policy, str(local), secret, record
        headers = ((REGION_HEADER, policy.region), (LABEL_HEADER, policy.label), (ZONE_HEADER, zone))
        self._headers = {name: value for name, value in headers if value}
        self._credentials = credentials
        self._window = TokenWindow(data_dir, time.time())
        self._tokens = RequestTokens(self._window.since)
        self._node_tokens = node_tokens or NodeTokenFile("", None)

    @property
    def has_secret(self) -> bool:
        """Whether the region has a secret, so that requests need tokens."""
        return self._secret is not None

    @property
    def response_headers(self) -> dict[str, str]:
        """The headers of this node's responses."""
        return dict(self._headers)

    @property
    def proves(self) -> bool:
        """Whether peers prove that they belong to the region; only then their tags can be trusted."""
        return self._peer_keys() is not None

    def request_headers(self, method: str, target: str, peer: PeerId, range_header: str = "") -> dict[str, str]:
        """The headers of a request to `peer`. The token is valid once: a retry needs new headers."""
        headers = {MIRRORED_HEADER: "true", **self.response_headers}
        if (keys := self._peer_keys()) is not None:
            request = Request(method, target, str(peer), range_header)
            nonce = secrets.token_hex(NONCE_CHARS // 2)
            headers[TOKEN_HEADER] = sign_request(keys.requests[0], request, issued=int(time.time()), nonce=nonce)
        return headers

    def may_ask(self, host: str) -> bool:
        """Whether `host` is in the region's networks. If not, it is counted and must not be requested."""
        if self._policy.covers(host):
            return True
        self._record.rejected(Layer.NETWORK, host, "a provider's address is outside --region-networks")
        return False

    def is_unproven(self, host: str, asked: Mapping[str, str], status: int, headers: Mapping[str, str]) -> bool:
        """Whether a response lacks a valid proof, which is counted; `asked` is what `request_headers` gave.

        Header names of the response are in lower case.
        """
        if (token := asked.get(TOKEN_HEADER)) is None:
            return False
        keys, proof = self._peer_keys(), headers.get(PROOF_HEADER.lower(), "")
        if keys is not None and proves(keys.answers, proof, token, status, bound(headers.items())):
            return False
        self._record.rejected(Layer.ANSWER, host, f"its response has {'a wrong' if proof else 'no'} proof")
        return True

    def refuses_answer(self, host: str, headers: Mapping[str, str]) -> bool:
        """Whether a response (header names in lower case) comes from another region, which is counted."""
        region = headers.get(REGION_HEADER.lower(), "")
        label = headers.get(LABEL_HEADER.lower(), "")
        if not self._policy.admits(region):
            self._record.rejected(Layer.HTTP, host, f"it responded {_saying(region)}")
        elif not self._policy.shares(label):
            self._record.other_label(Layer.HTTP, host, label, self._policy.label)
        else:
            return False
        return True

    def enter(self, method: str, target: str, headers: Mapping[str, str], remote: str) -> Visit | None:
        """Check a request from the address `remote`; None where it is refused, which is counted."""
        from_peer = is_peer(headers)
        region = headers.get(REGION_HEADER, "")
        if from_peer and not self._policy.covers(remote):
            self._record.rejected(Layer.NETWORK, remote, "it sent a request from outside --region-networks")
            return None
        if not self._policy.admits(region) and (from_peer or region):
            self._record.rejected(Layer.HTTP, remote, f"it sent a request {_saying(region)}")
            return None
        if not self._policy.shares(label := headers.get(LABEL_HEADER, "")):
            self._record.other_label(Layer.HTTP, remote, label, self._policy.label)
            return None
        return self._enter_peer(method, target, headers, remote) if from_peer else self._enter_client(headers, remote)

    def _enter_peer(self, method: str, target: str, headers: Mapping[str, str], remote: str) -> Visit | None:
        token = headers.get(TOKEN_HEADER, "")
        # Without a region secret, a peer without a token is accepted here; basic auth checks its password (Spegel).
        otherwise = Visit() if self._secret is None else None
        if (keys := self._peer_keys()) is None or (not token and otherwise):
            return otherwise
        request = Request(method, target, self._local, headers.get("Range", ""))
        now = time.time()
        why = self._tokens.check(keys.requests, request, token, now, remote)
        signer = signer_of(keys.requests, request, token) if why is None else None
        if signer is None:
            self._record.rejected(Layer.TOKEN, remote, f"its token is {why}")
            return otherwise
        self._window.taken(int(token.partition(".")[0]), now)
        # The key of the same line of the secret: the peer has that one, whichever others it has.
        return Visit(token, keys.answers[signer])

    def _enter_client(self, headers: Mapping[str, str], remote: str) -> Visit | None:
        if self._secret is None:
            return Visit()
        token = headers.get(NODE_TOKEN_HEADER, "")
        if why := self._node_tokens.check(self._secret.secret.node_keys, token):
            self._record.rejected(Layer.NODE_TOKEN, remote, f"the node token is {why}")
            return None
        return Visit()

    def _peer_keys(self) -> PeerKeys | None:
        return self._secret.secret.peers if self._secret is not None else self._credentials()


def _saying(region: str) -> str:
    return f"as a node of region {region}" if region else "without naming a region"
