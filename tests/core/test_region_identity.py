"""Which region am I in, and how do I know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.election.settings import ElectionSettings
from speil.region.identity import FROM_LABEL, FROM_NAMES, FROM_NOTHING, FROM_SETTING, identify
from speil.region.label import RegionError
from speil.region.naming import DEFAULT_LEASE, LeaseName
from speil.region.settings import RegionSettings
from speil.setting import SettingError

REGION_A = {"lease_name": "spegel-leader-election-regiona", "lease_namespace": "spegel-regiona"}


def test_from_the_two_names() -> None:
    identity = identify(**REGION_A)
    assert (identity.region, identity.region_source) == ("regiona", FROM_NAMES)
    assert identity.lease == LeaseName("spegel-leader-election-regiona", "spegel-regiona")
    assert identity.notes == ()


def test_nothing_said_is_no_region_and_spegels_names() -> None:
    identity = identify()
    assert (identity.region, identity.region_source, identity.lease) == ("", FROM_NOTHING, DEFAULT_LEASE)


def test_a_region_alone_names_its_lease() -> None:
    identity = identify(region="r")
    assert (identity.region_source, str(identity.lease)) == (FROM_SETTING, "spegel-r/spegel-leader-election-r")
    assert str(identify(region="r", lease_namespace="elsewhere").lease) == "elsewhere/spegel-leader-election-r"


def test_the_nodes_label_decides_last_and_names_the_lease() -> None:
    identity = identify(region_label="eu-west-1", zone_label="eu-west-1b")
    assert (identity.region, identity.region_source) == ("eu-west-1", FROM_LABEL)
    assert (identity.zone, identity.zone_source) == ("eu-west-1b", FROM_LABEL)
    assert identity.lease.namespace == "spegel-eu-west-1"
    named = identify(**REGION_A, region_label="eu-west-1")
    assert named.region == "regiona"
    assert "eu-west-1" in named.notes[0]


def test_names_that_contradict_are_refused_with_both_readings_and_the_way_out() -> None:
    names = {"lease_name": "spegel-leader-election-us-east-1", "lease_namespace": "spegel-us-west-1"}
    with pytest.raises(RegionError) as raised:
        identify(**names)
    for part in ("us-east-1", "us-west-1", "--region us-east-1", "--region us-west-1"):
        assert part in str(raised.value)
    identity = identify(**names, region="us-east-1")
    assert (identity.region, identity.lease.namespace) == ("us-east-1", "spegel-us-west-1")


def test_an_explicit_region_wins_and_the_names_other_reading_is_noted() -> None:
    identity = identify(**REGION_A, region="b")
    assert (identity.region, identity.lease.namespace) == ("b", "spegel-regiona")
    assert "regiona" in identity.notes[0]
    (note,) = identify(region="b", region_label="eu-west-1").notes
    assert "label topology.kubernetes.io/region is eu-west-1; --region decides: b" in note
    assert identify(region="b", region_label="b").notes == ()


def test_a_name_that_only_one_side_has_is_noted() -> None:
    identity = identify(lease_name="spegel-leader-election-a", lease_namespace="kube-system")
    assert identity.region == ""
    assert "--region a" in identity.notes[0]


def test_a_zone_label_that_is_no_label_is_noted_and_a_setting_refused() -> None:
    identity = identify(zone_label="Zone_1")
    assert (identity.zone, identity.zone_source) == ("", FROM_NOTHING)
    assert "Zone_1" in identity.notes[0]
    with pytest.raises(RegionError, match="--zone"):
        identify(zone="Zone_1")
    with pytest.raises(RegionError, match="node label"):
        identify(region_label="Region_1")


@given(
    *[st.sampled_from(["", "a", "eu-west-1", "spegel-a", "spegel-leader-election-a", "UP", "x" * 64])] * 6,
)
def test_any_input_is_an_identity_or_one_sentence(
    region: str, zone: str, name: str, namespace: str, region_label: str, zone_label: str
) -> None:
    written = {
        "region": region,
        "zone": zone,
        "lease_name": name,
        "lease_namespace": namespace,
        "region_label": region_label,
        "zone_label": zone_label,
    }
    try:
        identity = identify(**written)
    except RegionError as error:
        sentence = str(error)
    else:
        assert region in ("", identity.region)
        assert identity.lease.name == name or not name
        return
    assert "\n" not in sentence


def test_settings_give_identity_and_timings_or_say_what_is_wrong() -> None:
    settings = RegionSettings(region="r", zone="z")
    assert (settings.identity().region, settings.identity().zone) == ("r", "z")
    assert ElectionSettings().timings().lease_duration_seconds == 10
    with pytest.raises(SettingError, match="whole seconds"):
        ElectionSettings(lease_duration=10.5).timings()
    with pytest.raises(SettingError, match="renew-deadline"):
        ElectionSettings(renew_deadline=1).timings()
    with pytest.raises(SettingError, match="--region"):
        RegionSettings(region="No").identity()
