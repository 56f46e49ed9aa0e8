"""Which region am I in, and how do I know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.election.settings import ElectionSettings
from speil.region.identity import FROM_LABEL, FROM_NAMES, FROM_NOTHING, FROM_SETTING, identify
from speil.region.label import RegionError
from speil.region.naming import DEFAULT_LEASE, LeaseName, is_of, read, readings_against
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
    assert "set --region" in named.notes[0]


def test_names_that_contradict_are_refused_with_both_readings_and_the_way_out() -> None:
    names = {"lease_name": "spegel-leader-election-us-east-1", "lease_namespace": "spegel-us-west-1"}
    with pytest.raises(RegionError) as raised:
        identify(**names)
    for part in ("us-east-1", "us-west-1", "--region us-east-1", "--region us-west-1"):
        assert part in str(raised.value)
    identity = identify(**names, region="us-east-1")
    assert (identity.region, identity.lease.namespace) == ("us-east-1", "spegel-us-west-1")


BASES = ("spegel-leader-election", "spegel")


@pytest.mark.parametrize(
    ("region", "name", "namespace"),
    [
        ("b", "spegel-leader-election-a", "spegel-a"),
        ("b", "lock-a", "team-a"),
        ("b", "spegel-leader-election-a", "kube-system"),  # only one says something, and nothing says b
        ("b", "spegel-leader-election", "spegel-a"),
        ("c", "spegel-leader-election-a", "spegel-b"),
        ("east-1", "spegel-leader-election-us-east-1", "spegel-us-east-1"),
        ("eu", "lock-eu-prod", "team-eu-prod"),
    ],
)
def test_a_region_that_its_names_deny_is_refused_with_both_readings_and_what_to_write(
    region: str, name: str, namespace: str
) -> None:
    with pytest.raises(RegionError) as raised:
        identify(region=region, lease_name=name, lease_namespace=namespace)
    told = LeaseName(name, namespace)
    others = [one for one in (read(told).by_name, read(told).by_namespace) if one]
    assert others
    said = str(raised.value)
    for part in (f"--region is {region}", f"read as region {' and '.join(dict.fromkeys(others))}", f"-{region}"):
        assert part in said
    assert f"set --region {others[0]}" in said
    accepted = identify(region=others[0], lease_name=name, lease_namespace=namespace)
    assert accepted.region == others[0], "what it says to write is accepted"


@pytest.mark.parametrize(
    ("region", "name", "namespace", "ours"),
    [
        ("a", "spegel-leader-election-a", "spegel-a", True),
        ("a", "", "", True),
        ("a", "lock-a", "team-a", True),
        ("a", "my-spegel-a", "your-spegel-a", False),  # the common end is spegel-a; both end in -a all the same
        ("west", "lock-eu-west", "team-eu-west", False),
        ("a", *BASES, False),
        ("a", "lock", "kube-system", False),
        ("a", "spegel-leader-election-a", "kube-system", True),
        ("a", "", "elsewhere", True),
        ("a", "", "spegel-system", False),  # the Lease's own name names region a, the namespace does not
        ("a", "spegel-leader-election-a", "spegel-b", False),  # names that contradict: --region said which
        ("b", "spegel-leader-election-a", "", False),
    ],
)
def test_names_that_tell_the_region_or_nothing_are_accepted(region: str, name: str, namespace: str, ours: bool) -> None:
    identity = identify(region=region, lease_name=name, lease_namespace=namespace, region_label="another")
    assert identity.region == region
    assert identity.label == "", "the operator has said it outright"
    assert identity.lease_is_ours == ours


@given(st.data())
def test_no_lease_is_two_regions_own(data: st.DataObject) -> None:
    word = st.sampled_from(["a", "b", "a-b", "eu-west-1", "west-1", "spegel", "lock"])
    name = data.draw(st.one_of(word, st.builds("{}-{}".format, st.sampled_from([BASES[0], "lock", "x-lock"]), word)))
    namespace = data.draw(
        st.one_of(word, st.builds("{}-{}".format, st.sampled_from([BASES[1], "team", "y-lock"]), word))
    )
    one, other = data.draw(word), data.draw(word)
    lease = LeaseName(name, namespace)
    assert one == other or not (is_of(one, lease) and is_of(other, lease))
    if is_of(one, lease):
        assert not readings_against(one, lease)


@pytest.mark.parametrize(
    ("label", "say"),
    [
        ("East_US.1", "--region east-us-1 on"),
        ("eu.west", "--region eu-west on"),
        ("__", "--region on"),
        ("é", "--region on"),
    ],
)
def test_a_label_that_can_not_be_a_region_is_refused_with_one_that_can(label: str, say: str) -> None:
    with pytest.raises(RegionError) as raised:
        identify(region_label=label)
    assert say in str(raised.value)
    assert identify(region="east-us-1", region_label=label).region == "east-us-1"


def test_the_label_takes_part_unless_the_region_was_set_outright() -> None:
    assert identify(**REGION_A, region_label="East_US.1").label == "East_US.1"
    assert identify(region_label="eu").label == "eu"
    assert identify(**REGION_A).label == identify(region="regiona", region_label="eu").label == ""
    with pytest.raises(RegionError, match="--topology-region"):
        identify(**REGION_A, region_label="no label")


def test_an_explicit_region_wins_over_the_label() -> None:
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
