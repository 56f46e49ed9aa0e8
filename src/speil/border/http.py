"""The registry port's door: what a request must carry to be answered, what an answer must, and what ours carry.

A peer (`X-Spegel-Mirrored`) tells its region, its topology label and, where the region has a secret, a token for this
one request; the answer carries a proof (`region.proof`). The label has a header of its own, which nodes that do not
know it pass over. A client of the node (containerd) shows the node token from hosts.toml, where the region has a
secret. Whoever can't gets an empty 404, as if there were nothing: a challenge would make containerd send the user's
registry credentials. An answer without a proof is no answer, whatever its status.

Nodes with the same basic auth and no secret prove themselves to each other in the same way, with keys that are made of
the credentials: a password is never sent to a peer.
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
    """Whether a request is a peer's, which is never relayed."""
    return headers.get(MIRRORED_HEADER, "").lower() == "true"


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that was let in. One that proved that it is of this region's node gets an answer with a proof."""

    token: str = field(default="", repr=False)
    key: bytes | None = field(default=None, repr=False)

    @property
    def is_proven(self) -> bool:
        """Whether it is a peer's, with a valid token."""
        return self.key is not None

    def proof(self, status: int, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The header that an answer carries, none where the request proved nothing."""
        if self.key is None:
            return {}
        return {PROOF_HEADER: sign_answer(self.key, self.token, status, bound(headers))}


def _no_keys() -> PeerKeys | None:
    return None


class HttpDoor:
    """Both sides of a request between nodes; `local` is this node, `secret` None where the region has none.

    `credentials` gives the keys that basic auth makes, None while it is off. `data_dir` keeps what a restart must not
    forget.
    """

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
        self._policy, self._local, self._secret, self._record = policy, str(local), secret, record
        told = ((REGION_HEADER, policy.region), (LABEL_HEADER, policy.label), (ZONE_HEADER, zone))
        self._told = {name: value for name, value in told if value}
        self._credentials = credentials
        self._window = TokenWindow(data_dir, time.time())
        self._tokens = RequestTokens(self._window.since)
        self._node_tokens = node_tokens or NodeTokenFile("", None)

    @property
    def has_secret(self) -> bool:
        """Whether requests have to prove themselves."""
        return self._secret is not None

    @property
    def response_headers(self) -> dict[str, str]:
        """What our answers carry."""
        return dict(self._told)

    @property
    def proves(self) -> bool:
        """Whether peers prove themselves: whether what one says of a tag is a member's word."""
        return self._peer_keys() is not None

    def request_headers(self, method: str, target: str, peer: PeerId, range_header: str = "") -> dict[str, str]:
        """What a request to `peer` carries. Its token is good once: a request that is repeated needs new ones."""
        headers = {MIRRORED_HEADER: "true", **self.response_headers}
        if (keys := self._peer_keys()) is not None:
            request = Request(method, target, str(peer), range_header)
            nonce = secrets.token_hex(NONCE_CHARS // 2)
            headers[TOKEN_HEADER] = sign_request(keys.requests[0], request, issued=int(time.time()), nonce=nonce)
        return headers

    def may_ask(self, host: str) -> bool:
        """Whether a peer's registry at `host` is inside the region's networks."""
        if self._policy.covers(host):
            return True
        self._record.rejected(Layer.NETWORK, host, "a provider's address is outside --region-networks")
        return False

    def is_unproven(self, host: str, asked: Mapping[str, str], status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer lacks the proof that it needs; `asked` is what `request_headers` gave.

        Header names of the answer are in lower case.
        """
        if (token := asked.get(TOKEN_HEADER)) is None:
            return False
        keys, proof = self._peer_keys(), headers.get(PROOF_HEADER.lower(), "")
        if keys is not None and proves(keys.answers, proof, token, status, bound(headers.items())):
            return False
        self._record.rejected(Layer.ANSWER, host, f"its answer has {'a wrong' if proof else 'no'} proof")
        return True

    def refuses_answer(self, host: str, headers: Mapping[str, str]) -> bool:
        """Whether an answer (header names in lower case) comes from another region."""
        region = headers.get(REGION_HEADER.lower(), "")
        label = headers.get(LABEL_HEADER.lower(), "")
        if not self._policy.admits(region):
            self._record.rejected(Layer.HTTP, host, f"it answered {_saying(region)}")
        elif not self._policy.shares(label):
            self._record.other_label(Layer.HTTP, host, label, self._policy.label)
        else:
            return False
        return True

    def enter(self, method: str, target: str, headers: Mapping[str, str], remote: str) -> Visit | None:
        """Let a request from the address `remote` in; None where it is not to be answered."""
        from_peer = is_peer(headers)
        region = headers.get(REGION_HEADER, "")
        if from_peer and not self._policy.covers(remote):
            self._record.rejected(Layer.NETWORK, remote, "it asked from outside --region-networks")
            return None
        if not self._policy.admits(region) and (from_peer or region):
            self._record.rejected(Layer.HTTP, remote, f"it asked {_saying(region)}")
            return None
        if not self._policy.shares(label := headers.get(LABEL_HEADER, "")):
            self._record.other_label(Layer.HTTP, remote, label, self._policy.label)
            return None
        return self._enter_peer(method, target, headers, remote) if from_peer else self._enter_client(headers, remote)

    def _enter_peer(self, method: str, target: str, headers: Mapping[str, str], remote: str) -> Visit | None:
        token = headers.get(TOKEN_HEADER, "")
        # where only basic auth could prove a peer, one that shows the password instead (Spegel) is let in by that
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
        # the key of the same line: the peer has that one, whichever others
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
