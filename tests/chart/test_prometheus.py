"""A real Prometheus with the chart's rules watches two regions: every query of every panel and rule, and every alert.

The rules are those that helm renders, with durations sixty times as short (`tests/chart/prometheus.py`). What the run
does is in `tests/chart/watched_regions.py`. Queries that two regions on one machine can't answer are named here with
the reason. They are asked of a page with made-up values (`tests/chart/made_up.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.chart import made_up
from tests.chart.prometheus import TIMES_FASTER, faster
from tests.chart.questions import RULES, Question, dashboard, questions, rules
from tests.chart.rendering import EXAMPLES, render
from tests.chart.test_dashboard import SPEGELS_SERIES
from tests.chart.watched_regions import ZONES, A, B, Watched, watched

# four times the scrape interval, as Grafana takes it; and the whole run
SCRAPED = {"__rate_interval": "4s", "__range": "3m"}
BOTH = f"{A}|{B}"
# Queries without data here.
NO_KUBELET = "the kubelet's series: these regions have no kubelet; tests/cluster/test_monitoring.py has"
NO_DATA = dict.fromkeys(("Pulls that failed", "Pulls of the kubelet", "Time of a pull, p95"), NO_KUBELET)
# Queries whose data may be missing, or 0 all the time.
NO_OVERLOAD = "counts what a node refuses under load or attack: nothing does that here"
NO_BAD_PEER = "counts peers that break off, are slow or send wrong bytes: there are none"
MOMENTARY = "what it counts may begin and end between two scrapes"
SELDOM = {
    "Downloads in flight": MOMENTARY,
    "Followers now": MOMENTARY,
    "Open requests and uploads: open requests": MOMENTARY,
    "Open requests and uploads: uploads": MOMENTARY,
    "Withheld tags": MOMENTARY,
    "News of the store: scan {{reason}}": "nodes scan their store when they start and every ten minutes",
    "Uploads that waited for --upload-limit": "no limit is set",
    "Peers that failed or erred: continued elsewhere": NO_BAD_PEER,
    "Peers that failed or erred: banned": NO_BAD_PEER,
    "Peers that failed or erred: missing in the store": NO_BAD_PEER,
    "Sources left, followers refused: left {{reason}}": NO_BAD_PEER,
    "Sources left, followers refused: refused": NO_OVERLOAD,
    "Sources left, followers refused: stepped aside": "only containerd 2.1 and later is asked to come again",
    "Claims refused": NO_OVERLOAD,
    "libp2p connections closed": NO_OVERLOAD,
    "Addresses not dialed": NO_OVERLOAD,
    "Peers and clients sent elsewhere: upload {{reason}}": NO_OVERLOAD,
    "Peers and clients sent elsewhere: request {{reason}}": NO_OVERLOAD,
    "Connections refused or closed: {{port}} {{reason}}": NO_OVERLOAD,
    "Connections refused or closed: {{port}} malformed": NO_OVERLOAD,
    "Connections refused or closed: slow body": NO_OVERLOAD,
    "DHT requests above a limit: {{reason}}": NO_OVERLOAD,
    "DHT requests above a limit: seconds waited": NO_OVERLOAD,
}
pytestmark = [pytest.mark.requires("promtool", "helm")]


def name(question: Question) -> str:
    """The panel, and what its legend says beyond region, zone and node."""
    more = re.sub(r"^({{(region|zone|instance|node)}} ?)+", "", question.legend)
    queries = sum(one.panel == question.panel for one in questions())
    return f"{question.panel}: {more}" if queries > 1 else question.panel


def rendered() -> dict[str, object]:
    """The rules, as helm renders them."""
    (example,) = (path for path in EXAMPLES if path.stem == "monitoring")
    spec: dict[str, object] = render(example).only("PrometheusRule")["spec"]
    return spec


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The regions have lived through everything; Prometheus still answers."""
    with watched(tmp_path_factory.mktemp("prometheus"), rendered()) as found:
        yield found


def test_durations_alone_are_shortened_and_all_of_them() -> None:
    before, after = rendered(), faster(rendered())
    assert before == yaml.safe_load(RULES.read_text())
    durations = re.compile(r"(?<=\[)\w+(?=\])|(?<='for': ')\w+(?=')")
    old, new = durations.findall(str(before)), durations.findall(str(after))
    seconds = {"s": 1, "m": 60, "h": 3600}
    assert [int(one[:-1]) * seconds[one[-1]] * 1000 / TIMES_FASTER for one in old] == [int(one[:-2]) for one in new]
    assert durations.sub("", str(before)) == durations.sub("", str(after))
    assert len(old) > 15


@pytest.mark.parametrize("question", questions(), ids=name)
def test_each_query_of_each_panel_returns_data(seen: Watched, question: Question) -> None:
    found = seen.server.greatest(question.asked(region=BOTH, **SCRAPED), seen.began, seen.ended)
    assert {one.labels.get("region", BOTH) for one in found} <= {A, B, BOTH}
    if name(question) in NO_DATA:
        assert not found, f"it has data: {NO_DATA[name(question)]!r} is no longer true"
    if name(question) in NO_DATA | SELDOM:
        found = seen.server.greatest(question.asked(region=made_up.REGION, **SCRAPED), seen.began, seen.ended)
    assert max(one.value for one in found) > 0


def test_each_exception_is_of_a_query_that_exists() -> None:
    assert {*NO_DATA, *SELDOM} <= set(map(name, questions()))
    assert len(set(map(name, questions()))) == len(questions())


@pytest.mark.parametrize("question", [one for one in questions() if "$by" in one.expression], ids=name)
def test_each_query_can_be_grouped_by_node_and_keeps_to_the_chosen_one(seen: Watched, question: Question) -> None:
    nodes_with_data = 0
    for at, zone in enumerate(ZONES, 1):
        node = f"{A}-{at}"
        chosen = {"region": A, "zone": zone, "node": node, "by": "region, zone, instance"} | SCRAPED
        found = seen.server.greatest(question.asked(**chosen), seen.began, seen.ended)
        nodes_with_data += bool(found)
        for one in found:
            assert (one.labels["region"], one.labels["zone"], one.labels["instance"]) == (A, zone, node)
    # some nodes only send, others only receive
    assert nodes_with_data or name(question) in NO_DATA | SELDOM


def test_the_variables_offer_regions_then_zones_then_nodes(seen: Watched) -> None:
    def offered(variable: str, **chosen: str) -> list[str]:
        (query,) = (one["query"] for one in dashboard()["templating"]["list"] if one["name"] == variable)
        (asked,) = re.findall(r"^label_values\((.+)\)$", Question("", "", query).asked(**chosen))
        series, _, label = asked.rpartition(",")
        found: list[str] = seen.server.get(f"/api/v1/label/{label.strip()}/values", **{"match[]": series})
        return found

    assert offered("region") == [made_up.REGION, A, B]
    assert offered("zone", region=A) == sorted(set(ZONES))
    assert offered("node", region=A, zone="zone2") == [f"{A}-2"]
    assert offered("registry", region=B) == ["registry.demo"]


@pytest.mark.parametrize("record", [rule["record"] for rule in rules() if "record" in rule])
def test_each_recording_rule_has_data_for_both_regions(seen: Watched, record: str) -> None:
    found = seen.server.greatest(record, seen.began, seen.ended)
    assert {one.labels["region"] for one in found if one.value > 0} >= (
        {A} if record == "region_layer:speil_cross_region_rejected:rate5m" else {A, B}
    )


@pytest.mark.parametrize("alert", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_each_alert_fires_with_its_cause_and_is_resolved(seen: Watched, alert: dict[str, object]) -> None:
    fired = {region: found for (name, region), found in seen.fired.items() if name == alert["alert"]}
    assert fired
    for region, found in fired.items():
        annotations = found["annotations"]
        assert region in annotations["summary"]
        assert "<no value>" not in str(annotations)
        assert "{{" not in str(annotations)
    now = seen.server.query(f'ALERTS{{alertname="{alert["alert"]}",region=~"{BOTH}"}}', at=seen.ended)
    assert not [one for one in now if one.labels["alertstate"] == "firing"]


def test_only_the_region_at_whose_border_somebody_was_has_that_alert(seen: Watched) -> None:
    assert {region for name, region in seen.fired if name == "SpeilCrossRegionRejected"} == {A}
    rejected = seen.server.greatest("sum by (region) (speil_cross_region_rejected_total)", seen.began, seen.ended)
    assert {one.labels["region"]: one.value > 0 for one in rejected if one.labels["region"] in (A, B)} == {
        A: True,
        B: False,
    }


def test_no_byte_crossed(seen: Watched) -> None:
    for region in (A, B):
        # the newest value that each node had, also that of the leader that was killed
        got = f'last_over_time(speil_served_bytes_total{{client="node",source="peer",region="{region}"}}[10m])'
        sent = f'last_over_time(speil_served_bytes_total{{client="peer",region="{region}"}}[10m])'
        (received,) = seen.server.query(f"sum({got})", at=seen.ended)
        (crossed,) = seen.server.query(f"sum({got}) - sum({sent})", at=seen.ended)
        assert received.value > 0
        assert crossed.value <= 0


def test_prometheus_evaluated_every_rule_without_an_error(seen: Watched) -> None:
    groups = seen.server.get("/api/v1/rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) == len(rules())
    assert [(rule["name"], rule["lastError"]) for rule in found if rule.get("lastError")] == []


@pytest.mark.parametrize("series", SPEGELS_SERIES)
def test_spegels_dashboard_has_data(seen: Watched, series: str) -> None:
    """Each series of Spegel's dashboard, selected by the labels of its variables, in regions under pulls."""
    pod = seen.server.greatest(f'{series}{{pod=~"speil-{A}-.+",instance=~".+"}}', seen.began, seen.ended)
    assert max(one.value for one in pod) > 0
