"""Whether the regions are well, and where images came from."""

from __future__ import annotations

from scripts.dashboard.panel import Panel, Query, Row
from scripts.dashboard.promql import BAD, GOOD, OURS, WHO, or_zero, quantile, rate

_PEER_BYTES = 'sum by (region) (increase(speil_served_bytes_total{client="node",source="peer",%registry}[$__range]))'
_UPSTREAM_BYTES = "sum by (region) (increase(speil_upstream_bytes_total{%registry}[$__range]))"
_HITS = 'sum by (region) (increase(spegel_mirror_requests_total{cache="hit",%registry}[$__range]))'
_REQUESTS = "sum by (region) (increase(spegel_mirror_requests_total{%registry}[$__range]))"

OVERVIEW = Row(
    "Overview",
    (
        Panel(
            "Nodes",
            "Nodes that Prometheus reads.",
            "short",
            (Query("count by (region) (speil_store_available{%node})", "{{region}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Leaders",
            "One in each region. 0: new nodes find only the peers that they saved. 2: nodes use different Leases.",
            "short",
            (Query('sum by (region) (speil_election_state{state="leader",%region})', "{{region}}"),),
            kind="stat",
            width=4,
            thresholds=((None, BAD), (1, GOOD), (2, BAD)),
        ),
        Panel(
            "Hit ratio by requests",
            "Of the requests that a node's own store could not answer, the part that peers answered.",
            "percentunit",
            (Query(f"{or_zero(_HITS, _REQUESTS)} / ({_REQUESTS} > 0)", "{{region}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Hit ratio by bytes",
            "Of the bytes that came into the nodes, the part that came from peers and not from upstream.",
            "percentunit",
            (
                Query(
                    f"{or_zero(_PEER_BYTES, _UPSTREAM_BYTES)} / (({or_zero(_PEER_BYTES, _UPSTREAM_BYTES)} + "
                    f"{or_zero(_UPSTREAM_BYTES, _PEER_BYTES)}) > 0)",
                    "{{region}}",
                ),
            ),
            kind="stat",
            width=4,
        ),
        Panel(
            "Attempts from outside, kept out",
            "No byte crossed. Lines `kept out of the region` in the nodes' logs say who it was and what to correct.",
            "short",
            (Query("sum by (region) (increase(speil_cross_region_rejected_total{%node}[$__range]))", "{{region}}"),),
            kind="stat",
            width=4,
            thresholds=((None, GOOD), (1, BAD)),
        ),
        Panel(
            "Alerts",
            "Alerts of speil that fire now. Needs the chart's rules (prometheusRule.enabled).",
            "short",
            (
                Query(
                    "count by (alertname, region) (ALERTS{alertname=~'Speil.+',alertstate='firing',%region})",
                    "{{alertname}} {{region}}",
                ),
            ),
            kind="stat",
            width=4,
            thresholds=((None, GOOD), (1, BAD)),
        ),
    ),
)

PULLS = Row(
    "Pulls",
    (
        Panel(
            "Bytes by where they came from",
            "What containerd received: from the node's own store, from peers, from the upstream.",
            "Bps",
            (
                Query(rate('speil_served_bytes_total{client="node",source="peer",%registry}'), f"{WHO} peers"),
                Query(rate('speil_served_bytes_total{client="node",source="store",%registry}'), f"{WHO} own store"),
                Query(rate("speil_upstream_bytes_total{%registry}"), f"{WHO} upstream"),
            ),
            width=12,
            is_stacked=True,
        ),
        Panel(
            "Hit ratio by bytes, by registry",
            "Over five minutes, of all nodes of a region. Needs the chart's rules (prometheusRule.enabled).",
            "percentunit",
            (
                Query(
                    'region_registry:speil_bytes:hit_ratio_rate5m{%region,registry=~"$registry"}',
                    "{{region}} {{registry}}",
                ),
            ),
            width=12,
        ),
        Panel(
            "Requests that peers could answer",
            "Requests of containerd for content that the own store lacks: hit (a peer sent it) or miss (upstream did).",
            "reqps",
            (Query(rate("spegel_mirror_requests_total{%registry}", "cache"), f"{WHO} {{{{cache}}}}"),),
        ),
        Panel(
            "Hit ratio by requests, by registry",
            "Over five minutes, of all nodes of a region. Needs the chart's rules (prometheusRule.enabled).",
            "percentunit",
            (
                Query(
                    'region_registry:spegel_mirror_requests:hit_ratio_rate5m{%region,registry=~"$registry"}',
                    "{{region}} {{registry}}",
                ),
            ),
        ),
        Panel(
            "Time since content came from a peer",
            "Of the node for which it is shortest. A restarted node begins anew.",
            "s",
            (Query("time() - max by ($by) (spegel_mirror_last_success_timestamp_seconds{%node} > 0)", WHO),),
        ),
        Panel(
            "Time of an answer",
            "Of requests to the registry port, of containerd and of peers, with the body.",
            "s",
            tuple(
                Query(
                    quantile(part, 'http_request_duration_seconds_bucket{handler="/v2/*",%node}', OURS),
                    f"{WHO} p{round(part * 100)}",
                )
                for part in (0.5, 0.95)
            ),
        ),
        Panel(
            "Tags that containerd asked for",
            "Answered: store, peer. Left to the upstream: none (no node has it), disagreement, not_whole.",
            "reqps",
            (Query(rate("speil_tag_answers_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "Bytes from peers, by zone",
            "same: of this node's zone. other: over a zone border, which may cost money. unknown: without a zone.",
            "Bps",
            (Query(rate("speil_peer_bytes_total{%node}", "relation"), f"{WHO} {{{{relation}}}}"),),
            is_stacked=True,
        ),
    ),
)
