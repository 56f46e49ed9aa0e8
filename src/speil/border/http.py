"""The registry port's door: what a request must carry to be answered, and what ours carry to peers.

A peer (`X-Spegel-Mirrored`) tells its region, its topology label and, where the region has a secret, a token for this
one request. The label has a header of its own, which nodes that do not know it pass over. A client of the node
(containerd) shows the node token from hosts.toml, where the region has a secret. Whoever can't gets an empty 404, as if
there were nothing: a challenge would make containerd send the user's registry credentials.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from speil.border.record import BorderRecord
from speil.border.secret_file import SecretFile
from speil.multiformats.peer_id import PeerId
from speil.region.policy import Layer, Policy
from speil.region.token import NONCE_CHARS, Request, RequestTokens, check_node, sign_request

MIRRORED_HEADER = "X-Spegel-Mirrored"
REGION_HEADER, ZONE_HEADER = "X-Speil-Region", "X-Speil-Zone"
LABEL_HEADER = "X-Speil-Topology-Region"
TOKEN_HEADER, NODE_TOKEN_HEADER = "X-Speil-Token", "X-Speil-Node-Token"


def is_peer(headers: Mapping[str, str]) -> bool:
    """Whether a request is a peer's, which is never relayed."""
    return headers.get(MIRRORED_HEADER, "").lower() == "true"


class HttpDoor:
    """Both sides of a request between nodes; `local` is this node, `secret` None where the region has none."""

    def __init__(
        self, policy: Policy, local: PeerId, secret: SecretFile | None, record: BorderRecord, zone: str = ""
    ) -> None:
        self._policy, self._local, self._secret, self._record = policy, str(local), secret, record
        told = ((REGION_HEADER, policy.region), (LABEL_HEADER, policy.label), (ZONE_HEADER, zone))
        self._told = {name: value for name, value in told if value}
        self._tokens = RequestTokens()

    @property
    def has_secret(self) -> bool:
        """Whether requests have to prove themselves."""
        return self._secret is not None

    @property
    def response_headers(self) -> dict[str, str]:
        """What our answers carry."""
        return dict(self._told)

    def request_headers(self, method: str, target: str, peer: PeerId) -> dict[str, str]:
        """What a request to `peer` carries."""
        headers = {MIRRORED_HEADER: "true", **self.response_headers}
        if self._secret is not None:
            request = Request(method, target, str(peer))
            key, nonce = self._secret.secret.peer_keys[0], secrets.token_hex(NONCE_CHARS // 2)
            headers[TOKEN_HEADER] = sign_request(key, request, issued=int(time.time()), nonce=nonce)
        return headers

    def may_ask(self, host: str) -> bool:
        """Whether a peer's registry at `host` is inside the region's networks."""
        if self._policy.covers(host):
            return True
        self._record.rejected(Layer.NETWORK, host, "a provider's address is outside --region-networks")
        return False

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

    def refuses(self, method: str, target: str, headers: Mapping[str, str], remote: str) -> bool:
        """Whether a request from the address `remote` is not to be answered."""
        from_peer = is_peer(headers)
        region = headers.get(REGION_HEADER, "")
        if from_peer and not self._policy.covers(remote):
            self._record.rejected(Layer.NETWORK, remote, "it asked from outside --region-networks")
            return True
        if not self._policy.admits(region) and (from_peer or region):
            self._record.rejected(Layer.HTTP, remote, f"it asked {_saying(region)}")
            return True
        if not self._policy.shares(label := headers.get(LABEL_HEADER, "")):
            self._record.other_label(Layer.HTTP, remote, label, self._policy.label)
            return True
        if self._secret is None:
            return False
        keys = self._secret.secret
        if from_peer:
            layer, what = Layer.TOKEN, "its token"
            request = Request(method, target, self._local)
            why = self._tokens.check(keys.peer_keys, request, headers.get(TOKEN_HEADER, ""), time.time())
        else:
            layer, what = Layer.NODE_TOKEN, "the node token"
            why = check_node(keys.node_keys, headers.get(NODE_TOKEN_HEADER, ""))
        if why:
            self._record.rejected(layer, remote, f"{what} is {why}")
        return why is not None


def _saying(region: str) -> str:
    return f"as a node of region {region}" if region else "without naming a region"
