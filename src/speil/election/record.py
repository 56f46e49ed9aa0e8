"""What stands in the Lease: client-go's LeaderElectionRecord and our annotations, to and from the API's JSON.

Anybody may have written the Lease, so the JSON is read leniently: a field that does not parse counts as absent, and the
election goes on. A record is written into the document that was read, so that fields, labels and annotations of others
survive an update.

The age of a record comes from the API server's clock alone: the response's `Date` minus the time of the last write of
`renewTime` in `metadata.managedFields`. The leader's clock (`renewTime` itself) counts only where managedFields are
missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

API_VERSION = "coordination.k8s.io/v1"
PEERS_ANNOTATION, NODES_ANNOTATION, REGION_ANNOTATION = "speil.dev/peers", "speil.dev/nodes", "speil.dev/region"
LABEL_ANNOTATION = "speil.dev/topology-region"  # the label topology.kubernetes.io/region of the region's nodes
PEERS_MAX = 8  # under a kilobyte, and one that is alive is enough
_LABEL_CHARS_MAX = 63  # the limit of Kubernetes for a label's value
_PEER_CHARS_MAX = 256  # a multiaddr with a peer id has about 90
# The server's own fields, which it keeps when an update leaves them out. With a uid, a Lease that was deleted could not
# be created again. An empty list of managedFields would delete them.
_SERVERS_OWN = ("uid", "managedFields", "creationTimestamp", "generation")
_INT_MAX = 2**31 - 1  # the API's integers are int32


@dataclass(frozen=True, slots=True)
class LeaderElectionRecord:
    """Who leads, since when, and what newcomers need to know. Times are in UTC, None where the Lease has none."""

    holder_identity: str = ""  # "" after a release
    lease_duration_seconds: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    leader_transitions: int = 0
    region: str | None = None  # None: no annotation; "": a mesh without regions
    nodes: int = 0  # the leader's estimate of the region's size; 0 is unknown
    peers: tuple[str, ...] = ()  # multiaddrs of live nodes
    label: str = ""  # the topology label of the region's nodes; "": no annotation

    def stamped(self, wall: datetime) -> LeaderElectionRecord:
        """The record with the renew time `wall`, which is also the acquire time where there is none yet."""
        return dataclasses.replace(self, renew_time=wall, acquire_time=self.acquire_time or wall)

    @property
    def heartbeat(self) -> tuple[object, ...]:
        """The fields of which a leader changes at least one with each renewal. Annotations are not among them."""
        return self.holder_identity, self.renew_time, self.acquire_time, self.leader_transitions


@dataclass(frozen=True, slots=True)
class Lease:
    """A record with its version in the API server, a file or memory."""

    record: LeaderElectionRecord
    version: str  # the resourceVersion: a write succeeds on the version that it read
    age_seconds: float | None = None  # since the last renewal, by the store's clock; None where that is unknown
    document: Mapping[str, Any] = field(default_factory=dict, compare=False)  # as read


def decode(document: Mapping[str, Any], served_at: datetime | None) -> Lease:
    """A Lease from its JSON and the time at which the server sent it (None: unknown, then the age is too)."""
    metadata, spec = _mapping(document.get("metadata")), _mapping(document.get("spec"))
    annotations = _mapping(metadata.get("annotations"))
    nodes, region = annotations.get(NODES_ANNOTATION, ""), annotations.get(REGION_ANNOTATION)
    peers = [peer for peer in str(annotations.get(PEERS_ANNOTATION, "")).split(",") if 0 < len(peer) <= _PEER_CHARS_MAX]
    record = LeaderElectionRecord(
        holder_identity=_text(spec.get("holderIdentity")),
        lease_duration_seconds=_number(spec.get("leaseDurationSeconds")),
        acquire_time=_time(spec.get("acquireTime")),
        renew_time=_time(spec.get("renewTime")),
        leader_transitions=_number(spec.get("leaseTransitions")),
        region=region if isinstance(region, str) else None,
        nodes=int(nodes) if isinstance(nodes, str) and nodes.isascii() and nodes.isdigit() and len(nodes) < 10 else 0,
        peers=tuple(peers[:PEERS_MAX]),
        label=label if len(label := _text(annotations.get(LABEL_ANNOTATION))) <= _LABEL_CHARS_MAX else "",
    )
    age = _age_seconds(metadata, record, served_at)
    return Lease(record, _text(metadata.get("resourceVersion")), age, document)


def encode(record: LeaderElectionRecord, base: Lease | None, *, name: str, namespace: str) -> dict[str, Any]:
    """The JSON that writes `record` over `base` (None: a new Lease)."""
    document = dict(base.document) if base else {}  # what is changed below is copied there
    document |= {"apiVersion": API_VERSION, "kind": "Lease"}
    metadata = dict(_mapping(document.get("metadata")))
    for field_name in _SERVERS_OWN:
        metadata.pop(field_name, None)
    metadata |= {"name": name, "namespace": namespace}
    annotations = dict(_mapping(metadata.get("annotations")))
    if record.region is not None:
        annotations[REGION_ANNOTATION] = record.region
    annotated = {
        NODES_ANNOTATION: str(record.nodes or ""),
        PEERS_ANNOTATION: ",".join(record.peers[:PEERS_MAX]),
        LABEL_ANNOTATION: record.label,
    }
    for key, value in annotated.items():
        if value:
            annotations[key] = value
        else:
            annotations.pop(key, None)  # it may be another region's
    if annotations or "annotations" in metadata:
        metadata["annotations"] = annotations
    if base and base.version:
        metadata["resourceVersion"] = base.version
    spec = dict(_mapping(document.get("spec"))) | {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": max(record.lease_duration_seconds, 1),
        "acquireTime": _micro_time(record.acquire_time),
        "renewTime": _micro_time(record.renew_time),
        "leaseTransitions": min(max(record.leader_transitions, 0), _INT_MAX),
    }
    return document | {"metadata": metadata, "spec": spec}


def _age_seconds(metadata: Mapping[str, Any], record: LeaderElectionRecord, served_at: datetime | None) -> float | None:
    if served_at is None or served_at.tzinfo is None:
        return None
    fields = metadata.get("managedFields")
    entries = [entry for entry in fields if isinstance(entry, dict)] if isinstance(fields, list) else []
    renewing = [entry for entry in entries if "f:renewTime" in _mapping(_mapping(entry.get("fieldsV1")).get("f:spec"))]
    times = [time for entry in renewing or entries if (time := _time(entry.get("time"))) is not None]
    written_at = max(times, default=record.renew_time)
    return None if written_at is None else (served_at - written_at).total_seconds()


def _micro_time(time: datetime | None) -> str | None:
    # MicroTime needs six digits, also where they are zeros
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z") if time else None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT_MAX else 0
