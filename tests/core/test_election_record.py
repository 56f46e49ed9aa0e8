"""The record and the API's JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from speil.election.record import LeaderElectionRecord, Lease, decode, encode

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
# as client-go writes it, read from an API server
DOCUMENT: dict[str, Any] = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {
        "name": "speil",
        "namespace": "region-a",
        "uid": "0b2d3c1e",
        "resourceVersion": "230",
        "labels": {"team": "infra"},
        "annotations": {"note": "kept", "speil.dev/nodes": "12", "speil.dev/peers": "/ip4/10.0.0.1/tcp/5001,/x"},
        "managedFields": [
            {
                "manager": "speil",
                "operation": "Update",
                "time": "2026-11-24T11:59:57Z",
                "fieldsV1": {"f:spec": {"f:holderIdentity": {}, "f:renewTime": {}}},
            },
            {
                "manager": "kubectl",
                "operation": "Update",
                "time": "2026-11-24T11:59:59Z",
                "fieldsV1": {"f:metadata": {"f:annotations": {"f:note": {}}}},
            },
        ],
    },
    "spec": {
        "holderIdentity": "/ip4/10.0.0.1/tcp/5001/p2p/x",
        "leaseDurationSeconds": 10,
        "acquireTime": "2026-11-24T11:00:00.000000Z",
        "renewTime": "2026-11-24T12:09:57.123456Z",
        "leaseTransitions": 3,
        "strategy": "OldestEmulationVersion",
    },
}

times = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))
records = st.builds(
    LeaderElectionRecord,
    holder_identity=st.text(max_size=40),
    lease_duration_seconds=st.integers(1, 2**31 - 1),
    acquire_time=st.none() | times,
    renew_time=st.none() | times,
    leader_transitions=st.integers(0, 2**31 - 1),
    region=st.none() | st.sampled_from(["", "eu-west-1"]),
    nodes=st.integers(0, 99_999),
    label=st.sampled_from(["", "eu-west-1", "East_US.1"]),
    peers=st.lists(st.sampled_from(["/ip4/10.0.0.1/tcp/5001", "/ip6/::1/tcp/1"]), max_size=8).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(records, records)
def test_what_a_record_does_not_tell_is_gone_from_the_lease(
    before: LeaderElectionRecord, record: LeaderElectionRecord
) -> None:
    document = encode(before, None, name="l", namespace="n")
    told = decode(encode(record, decode(document, None), name="l", namespace="n"), None).record
    assert (told.peers, told.nodes, told.label) == (record.peers, record.nodes, record.label)


@given(records)
def test_a_record_is_read_back_as_it_was_written(record: LeaderElectionRecord) -> None:
    document = json.loads(json.dumps(encode(record, None, name="n", namespace="ns")))
    assert decode(document, None).record == record


@given(times)
def test_a_micro_time_has_six_digits_always(time: datetime) -> None:
    spec = encode(LeaderElectionRecord(renew_time=time), None, name="n", namespace="ns")["spec"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", spec["renewTime"])


def test_what_others_wrote_survives_and_managed_fields_are_left_to_the_server() -> None:
    lease = decode(DOCUMENT, NOW)
    written = encode(LeaderElectionRecord("me", 10, NOW, NOW, 4, "r"), lease, name="speil", namespace="region-a")
    assert written["metadata"]["labels"] == {"team": "infra"}
    assert written["metadata"]["annotations"]["note"] == "kept"
    assert written["metadata"]["annotations"]["speil.dev/region"] == "r"
    assert written["metadata"]["resourceVersion"] == "230"
    assert not {"managedFields", "uid"} & set(written["metadata"])
    assert written["spec"]["strategy"] == "OldestEmulationVersion"
    assert DOCUMENT["metadata"]["managedFields"], "what was read is not touched"


def test_the_age_is_told_by_the_servers_clock_and_by_the_write_of_renew_time_alone() -> None:
    assert decode(DOCUMENT, NOW).age_seconds == 3
    bare = {**DOCUMENT, "metadata": {"resourceVersion": "1"}}
    assert decode(bare, NOW).age_seconds == -597.123456, "without managedFields the leader's clock is all there is"
    assert decode(DOCUMENT, None).age_seconds is None
    assert decode({}, NOW) == Lease(LeaderElectionRecord(), "", None)


def test_what_newcomers_need_is_read_within_bounds() -> None:
    assert decode(DOCUMENT, NOW).record.peers == ("/ip4/10.0.0.1/tcp/5001", "/x")
    assert decode(DOCUMENT, NOW).record.nodes == 12
    many = {
        "metadata": {
            "annotations": {"speil.dev/peers": ",".join(["/a"] * 99 + ["x" * 999]), "speil.dev/nodes": "9" * 30}
        }
    }
    assert len(decode(many, NOW).record.peers) == 8
    assert decode(many, NOW).record.nodes == 0


@given(json_values, json_values)
def test_garbage_reads_as_absent_and_can_be_written_over(metadata: Any, spec: Any) -> None:
    lease = decode({"metadata": metadata, "spec": spec}, NOW)
    document = encode(LeaderElectionRecord("me", 10, NOW, NOW), lease, name="n", namespace="ns")
    assert decode(document, None).record.holder_identity == "me"


@given(st.dictionaries(st.sampled_from(list(DOCUMENT["spec"])), json_values))
def test_garbage_in_any_field_leaves_the_others(fields: dict[str, Any]) -> None:
    record = decode({**DOCUMENT, "spec": {**DOCUMENT["spec"], **fields}}, NOW).record
    if "holderIdentity" not in fields:
        assert record.holder_identity == DOCUMENT["spec"]["holderIdentity"]


def test_a_stamp_renews_and_keeps_the_acquire_time_if_there_is_one() -> None:
    earlier = NOW - timedelta(hours=1)
    assert LeaderElectionRecord().stamped(NOW) == LeaderElectionRecord(acquire_time=NOW, renew_time=NOW)
    assert LeaderElectionRecord(acquire_time=earlier).stamped(NOW).acquire_time == earlier
    other_zone = decode({"spec": {"renewTime": "2026-11-24T13:00:00.000000+01:00"}}, None).record
    assert other_zone.renew_time == NOW.astimezone(timezone(timedelta(hours=1)))
