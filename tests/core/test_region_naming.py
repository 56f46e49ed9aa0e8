"""Names of regions, both ways."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from speil.region.label import RegionError, check_label, is_label
from speil.region.naming import DEFAULT_LEASE, LeaseName, check_lease, lease_of, read

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,54}[a-z0-9])?", fullmatch=True)


@given(labels)
def test_a_region_is_read_back_from_the_names_it_gives(region: str) -> None:
    names = lease_of(region)
    assert read(names).agreed == region
    assert not read(names).contradict
    assert check_lease(names) == names


@given(labels, labels)
def test_two_regions_on_the_usual_names_contradict(one: str, other: str) -> None:
    assume(one != other)
    readings = read(LeaseName(f"spegel-leader-election-{one}", f"spegel-{other}"))
    assert (readings.by_name, readings.by_namespace) == (one, other)
    assert readings.contradict
    assert readings.agreed is None


@given(labels, labels, labels)
def test_on_other_names_it_is_the_longest_common_end(base: str, other_base: str, region: str) -> None:
    assume(base[-1] != other_base[-1])
    assert read(LeaseName(f"{base}-{region}", f"{other_base}-{region}")).agreed == region


@given(st.text(max_size=70), st.text(max_size=70))
def test_whatever_is_read_is_a_label_that_both_names_end_in(name: str, namespace: str) -> None:
    if (region := read(LeaseName(name, namespace)).agreed) is not None:
        assert is_label(region)
        assert name.endswith(f"-{region}")
        assert namespace.endswith(f"-{region}")


@given(st.text(max_size=70))
def test_a_label_is_what_rfc_1123_says(text: str) -> None:
    expected = re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is not None and len(text) <= 63
    assert is_label(text) == expected
    if not expected:
        with pytest.raises(RegionError, match="--region"):
            check_label(text, "--region")


@pytest.mark.parametrize(
    ("name", "namespace", "region"),
    [
        ("spegel-leader-election-regiona", "spegel-regiona", "regiona"),
        ("spegel-leader-election-eu-west-1", "spegel-eu-west-1", "eu-west-1"),
        (DEFAULT_LEASE.name, DEFAULT_LEASE.namespace, None),
        ("spegel-leader-election", "kube-system", None),
        ("mirror-lock-a", "kube-system-a", "a"),
        ("lock-eu-1", "ns-eu-1", "eu-1"),
        ("one", "other", None),
        ("same-x", "same-x", "x"),
        ("spegel-leader-election-", "spegel-", None),
    ],
)
def test_examples(name: str, namespace: str, region: str | None) -> None:
    assert read(LeaseName(name, namespace)).agreed == region


def test_names_that_kubernetes_would_refuse_are_refused_before() -> None:
    with pytest.raises(RegionError, match="at most 56"):
        lease_of("a" * 57)
    with pytest.raises(RegionError, match="leader-election-name"):
        check_lease(LeaseName("Upper", "ok"))
    with pytest.raises(RegionError, match="leader-election-namespace"):
        check_lease(LeaseName("ok", "not.a.label"))
