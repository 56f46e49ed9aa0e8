"""Roll-outs: many nodes pull the same image at once, and share it while it is downloaded."""

from __future__ import annotations

from scripts.dashboard.panel import Panel, Query, Row
from scripts.dashboard.promql import WHO, rate

_COPIES = 'sum by (region) (increase(speil_shared_pulls_total{outcome=~"fetched|alone",%node}[$__range]))'
_FOLLOWED = 'sum by (region) (increase(speil_shared_pulls_total{outcome=~"followed|holders",%node}[$__range]))'

ROLLOUTS = Row(
    "Roll-outs",
    (
        Panel(
            "Upstream copies",
            "Contents that nodes downloaded from the upstream, since no peer had them.",
            "short",
            (Query(_COPIES, "{{region}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Copies saved",
            "Contents that nodes got from a peer that was still downloading them when they asked.",
            "short",
            (Query(_FOLLOWED, "{{region}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Downloads in flight",
            "Contents that nodes download now, from the upstream or as followers.",
            "short",
            (Query("sum by (region) (speil_pulls_in_flight{%node})", "{{region}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Followers now",
            "Bodies being sent to nodes that follow a download.",
            "short",
            (Query("sum by (region) (speil_open_followers{%node})", "{{region}}"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "What became of contents that no peer had",
            "fetched: from upstream, for the region. followed: from a node that downloaded it. holders: a peer had it "
            "meanwhile. alone: from upstream, without a claim. cancelled: by containerd. spoiled: wrong bytes.",
            "ops",
            (Query(rate("speil_shared_pulls_total{%node}", "outcome", "why"), f"{WHO} {{{{outcome}}}} {{{{why}}}}"),),
        ),
        Panel(
            "Bytes shared in flight",
            "Of content that was shared while it was downloaded: sent (source) and received (follower).",
            "Bps",
            (Query(rate("speil_shared_bytes_total{%node}", "role"), f"{WHO} {{{{role}}}}"),),
        ),
        Panel(
            "Sources left, followers refused",
            "Sources that followers left before the end, by reason; followers that a node sent elsewhere; requests "
            "that were ended so that a download that others wait for got a slot of containerd.",
            "ops",
            (
                Query(rate("speil_left_sources_total{%node}", "reason"), f"{WHO} left {{{{reason}}}}"),
                Query(rate("speil_refused_followers_total{%node}"), f"{WHO} refused"),
                Query(rate("speil_stepped_aside_total{%node}"), f"{WHO} stepped aside"),
            ),
        ),
        Panel(
            "Claims",
            "Answers of nodes that decide who fetches: fetch, follow, holders, defer (ask another node), alone.",
            "ops",
            (Query(rate("speil_claims_answers_total{%node}", "answer"), f"{WHO} {{{{answer}}}}"),),
            width=12,
        ),
        Panel(
            "Claims refused",
            "Messages that were not followed or not sent, by reason.",
            "ops",
            (Query(rate("speil_claims_refused_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),),
            width=12,
        ),
    ),
)
