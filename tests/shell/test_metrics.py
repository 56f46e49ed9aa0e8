"""The metrics page against what Spegel 0.7.4 and 0.0.23 export: names, types, labels and buckets, as text."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from speil.mirror.series import MirrorSeries
from speil.observe.metrics import Metrics
from speil.routing.series import AnnounceSeries, DhtSeries

OURS = {"region", "zone"}
# name → type and labels, from pkg/metrics/metrics.go and pkg/httpx/metrics.go of 0.7.4, and of 0.0.23 what went
SPEGELS = {
    "spegel_mirror_requests": ("counter", {"registry", "cache"}),
    "spegel_mirror_last_success_timestamp_seconds": ("gauge", set()),
    "spegel_resolve_duration_seconds": ("histogram", {"router"}),
    "spegel_advertised_images": ("gauge", {"registry"}),
    "spegel_advertised_keys": ("gauge", {"registry"}),
    "spegel_advertised_image_tags": ("gauge", {"registry"}),
    "spegel_advertised_image_digests": ("gauge", {"registry"}),
    "spegel_advertised_content_digests": ("gauge", {"registry"}),
    "http_request_duration_seconds": ("histogram", {"handler", "method", "code"}),
    "http_response_size_bytes": ("histogram", {"handler", "method", "code"}),
    "http_requests_inflight": ("gauge", {"handler"}),
}
# as client_golang writes them in the text format
DURATIONS = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]
SIZES = ["1024", "5120", "25600", "128000", "640000", "3.2e+06", "1.6e+07", "8e+07", "4e+08", "2e+09", "+Inf"]


def _page() -> str:
    metrics = Metrics("1", region="a", zone="b")
    mirror = metrics.of(MirrorSeries)
    mirror.mirror_requests.labels("docker.io", "hit").inc()
    mirror.mirror_last_success.set(1)
    metrics.of(DhtSeries).resolve_duration.labels("libp2p").observe(0.003)
    announced = metrics.of(AnnounceSeries)
    for number, gauge in enumerate((announced.image_tags, announced.image_digests, announced.content_digests), 2):
        gauge.labels("docker.io").set(number)
    mirror.http_request_duration.labels("/v2/*", "GET", "200").observe(0.003)
    mirror.http_response_size.labels("/v2/*", "GET", "200").observe(3)
    mirror.http_requests_inflight.labels("/v2/*").set(1)
    return metrics.exposition().decode()


def test_each_series_of_spegel_is_there_with_its_type_and_labels() -> None:
    found = {family.name: family for family in text_string_to_metric_families(_page())}
    for name, (kind, labels) in SPEGELS.items():
        family = found[name]
        assert family.type == kind, name
        for sample in family.samples:
            assert set(sample.labels) - OURS - {"le"} == labels, sample
            assert {label: sample.labels[label] for label in OURS} == {"region": "a", "zone": "b"}
    assert {sample.name for sample in found["spegel_mirror_requests"].samples} == {"spegel_mirror_requests_total"}


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("spegel_resolve_duration_seconds", DURATIONS),
        ("http_request_duration_seconds", DURATIONS),
        ("http_response_size_bytes", SIZES),
    ],
)
def test_the_buckets_are_spegels_to_the_character(name: str, bounds: list[str]) -> None:
    assert re.findall(rf'^{name}_bucket{{.*le="([^"]*)".*}}', _page(), re.MULTILINE) == bounds


def test_no_series_tells_when_another_was_created() -> None:
    assert "_created" not in _page()


def test_the_gauges_of_the_era_follow_those_of_today() -> None:
    page = _page()
    assert 'spegel_advertised_images{region="a",registry="docker.io",zone="b"} 3.0' in page
    assert 'spegel_advertised_keys{region="a",registry="docker.io",zone="b"} 6.0' in page
