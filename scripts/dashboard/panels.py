"""The panels of the dashboard: what an operator asks, from the whole to the parts.

`sum by ($by)` follows the variable "Group by": region, zone or node. A legend names all three; what is not grouped by is
empty. Series that other programs have too (`process_…`, `http_…`) count only where a speil node exports them: `_OURS`.
"""

from __future__ import annotations

from scripts.dashboard.panel import Panel, Query, Row

WHO = "{{region}} {{zone}} {{instance}}"
_OURS = "* on (job, instance) group_left () group by (job, instance) (speil_build_info)"
_GOOD, _BAD = "green", "red"


def _rate(series: str, *more: str) -> str:
    """The sum of the rates of a series, by `$by` and `more` labels."""
    return f"sum by ({', '.join(('$by', *more))}) (rate({series}[$__rate_interval]))"


def _quantile(quantile: float, series: str, ours: str = "") -> str:
    """A quantile of a histogram, by `$by`."""
    return f"histogram_quantile({quantile}, sum by ($by, le) (rate({series}[$__rate_interval]) {ours}))"


def _or_zero(series: str, other: str) -> str:
    """`series`, and 0 where only `other` exists."""
    return f"({series} or {other} * 0)"


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
            thresholds=((None, _BAD), (1, _GOOD), (2, _BAD)),
        ),
        Panel(
            "Hit ratio by requests",
            "Of the requests that a node's own store could not answer, the part that peers answered.",
            "percentunit",
            (Query(f"{_or_zero(_HITS, _REQUESTS)} / ({_REQUESTS} > 0)", "{{region}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Hit ratio by bytes",
            "Of the bytes that came into the nodes, the part that came from peers and not from upstream.",
            "percentunit",
            (
                Query(
                    f"{_or_zero(_PEER_BYTES, _UPSTREAM_BYTES)} / (({_or_zero(_PEER_BYTES, _UPSTREAM_BYTES)} + "
                    f"{_or_zero(_UPSTREAM_BYTES, _PEER_BYTES)}) > 0)",
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
            thresholds=((None, _GOOD), (1, _BAD)),
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
            thresholds=((None, _GOOD), (1, _BAD)),
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
                Query(_rate('speil_served_bytes_total{client="node",source="peer",%registry}'), f"{WHO} peers"),
                Query(_rate('speil_served_bytes_total{client="node",source="store",%registry}'), f"{WHO} own store"),
                Query(_rate("speil_upstream_bytes_total{%registry}"), f"{WHO} upstream"),
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
            (Query(_rate("spegel_mirror_requests_total{%registry}", "cache"), f"{WHO} {{{{cache}}}}"),),
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
                    _quantile(quantile, 'http_request_duration_seconds_bucket{handler="/v2/*",%node}', _OURS),
                    f"{WHO} p{round(quantile * 100)}",
                )
                for quantile in (0.5, 0.95)
            ),
        ),
        Panel(
            "Tags that containerd asked for",
            "Answered: store, peer. Left to the upstream: none (no node has it), disagreement, not_whole.",
            "reqps",
            (Query(_rate("speil_tag_answers_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "Bytes from peers, by zone",
            "same: of this node's zone. other: over a zone border, which may cost money. unknown: without a zone.",
            "Bps",
            (Query(_rate("speil_peer_bytes_total{%node}", "relation"), f"{WHO} {{{{relation}}}}"),),
            is_stacked=True,
        ),
    ),
)

PEERS = Row(
    "Peers",
    (
        Panel(
            "Requests to peers",
            "By outcome. busy: the peer has no free upload. own_limit: this node lacks descriptors or ports.",
            "reqps",
            (Query(_rate("speil_peer_requests_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "Peers that failed or erred",
            "Bodies that another peer continued, peers banned for wrong bytes, and content that did not reach the store.",
            "ops",
            (
                Query(_rate("speil_resumed_transfers_total{%node}"), f"{WHO} continued elsewhere"),
                Query(_rate("speil_peer_bans_total{%node}"), f"{WHO} banned"),
                Query(_rate("speil_missing_content_total{%node}"), f"{WHO} missing in the store"),
            ),
        ),
        Panel(
            "Peers in the routing table",
            "The fewest and the most of a node. A node with 0 is alone.",
            "short",
            (
                Query("min by ($by) (speil_routing_table_size{%node})", f"{WHO} fewest"),
                Query("max by ($by) (speil_routing_table_size{%node})", f"{WHO} most"),
            ),
        ),
        Panel(
            "Time to the first provider",
            "Of lookups of content in the DHT: half of them are faster than p50.",
            "s",
            tuple(
                Query(
                    _quantile(quantile, "spegel_resolve_duration_seconds_bucket{%node}"),
                    f"{WHO} p{round(quantile * 100)}",
                )
                for quantile in (0.5, 0.95)
            ),
        ),
        Panel(
            "Lookups",
            "Of providers, by outcome. empty: no node of the region has the content.",
            "ops",
            (Query(_rate("speil_lookups_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "DHT messages",
            "By direction and type.",
            "ops",
            (
                Query(
                    _rate("speil_dht_messages_total{%node}", "direction", "type"),
                    f"{WHO} {{{{direction}}}} {{{{type}}}}",
                ),
            ),
        ),
    ),
)

ANNOUNCING = Row(
    "Announcing",
    (
        Panel(
            "Keys that nodes announce",
            "Digests and tags in the stores that may be shared, and the records that nodes hold for the mesh.",
            "short",
            (
                Query("sum by ($by) (speil_provided_keys{%node})", f"{WHO} announced"),
                Query("sum by ($by) (speil_provider_records{%node})", f"{WHO} records held"),
            ),
        ),
        Panel(
            "Delay of announcements",
            "Between the time at which a key was due and the time at which peers got its record. New content is due "
            "at once: after this delay other nodes can find it.",
            "s",
            tuple(
                Query(
                    _quantile(quantile, "speil_announcement_delay_seconds_bucket{%node}"),
                    f"{WHO} p{round(quantile * 100)}",
                )
                for quantile in (0.5, 0.95)
            ),
        ),
        Panel(
            "Keys whose turn came",
            "skipped: enough other nodes provide it. failed: no node took the record; it is sent again. alone: there is "
            "no other node.",
            "ops",
            (Query(_rate("speil_announced_keys_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "Images announced, by registry",
            "Image digests and tags that nodes announce.",
            "short",
            (
                Query(
                    "sum by ($by, registry) (spegel_advertised_image_digests{%registry})",
                    f"{WHO} {{{{registry}}}} digests",
                ),
                Query(
                    "sum by ($by, registry) (spegel_advertised_image_tags{%registry})", f"{WHO} {{{{registry}}}} tags"
                ),
            ),
        ),
        Panel(
            "Withheld tags",
            "Tags that are not announced, because their image is complete for no platform.",
            "short",
            (Query("sum by ($by) (speil_withheld_tags{%node})", WHO),),
        ),
        Panel(
            "News of the store",
            "Events of the content store, and full scans of it by reason.",
            "ops",
            (
                Query(_rate("speil_store_events_total{%node}", "kind"), f"{WHO} event {{{{kind}}}}"),
                Query(_rate("speil_store_looks_total{%node}", "reason"), f"{WHO} scan {{{{reason}}}}"),
            ),
        ),
        Panel(
            "Stores that answer",
            "The part of the nodes that can read their content store. Below 100 %: is containerd up?",
            "percentunit",
            (Query("avg by ($by) (speil_store_available{%node})", WHO),),
        ),
    ),
)

ELECTION = Row(
    "Election and bootstrap",
    (
        Panel(
            "Leaders over time",
            "Nodes that say that they lead their region.",
            "short",
            (Query('sum by (region) (speil_election_state{state="leader",%region})', "{{region}}"),),
        ),
        Panel(
            "Age of the last renewal",
            "Of the Lease, as the node sees it that saw the newest. The leader renews every two seconds.",
            "s",
            (Query("min by (region) (speil_election_renewal_age_seconds{%region})", "{{region}}"),),
        ),
        Panel(
            "Changes of leader",
            "How often the Lease went to another holder, since it was created.",
            "short",
            (Query("max by (region) (speil_election_transitions{%region})", "{{region}}"),),
        ),
        Panel(
            "Requests for the Lease",
            "By verb and outcome. denied: a Role or RoleBinding is missing.",
            "reqps",
            (
                Query(
                    _rate("speil_election_requests_total{%node}", "verb", "outcome"),
                    f"{WHO} {{{{verb}}}} {{{{outcome}}}}",
                ),
            ),
        ),
        Panel(
            "Events of the election",
            "acquired, renewed, lost, new_leader and others.",
            "ops",
            (Query(_rate("speil_election_events_total{%node}", "event"), f"{WHO} {{{{event}}}}"),),
        ),
        Panel(
            "Attempts to find first peers",
            "By kind of bootstrap and outcome.",
            "ops",
            (
                Query(
                    _rate("speil_bootstrap_attempts_total{%node}", "kind", "outcome"),
                    f"{WHO} {{{{kind}}}} {{{{outcome}}}}",
                ),
            ),
        ),
    ),
)

BORDER = Row(
    "Border",
    (
        Panel(
            "Kept out, by layer",
            "Attempts of nodes of other regions, or of none. No byte crossed.",
            "ops",
            (Query(_rate("speil_cross_region_rejected_total{%node}", "layer"), f"{WHO} {{{{layer}}}}"),),
        ),
        Panel(
            "libp2p connections closed",
            "Connections and streams that were closed for what the peer did, by reason.",
            "ops",
            (Query(_rate("speil_rejected_connections_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),),
        ),
        Panel(
            "Addresses not dialed",
            "Addresses named by peers that nodes do not dial, by reason.",
            "ops",
            (Query(_rate("speil_dials_refused_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),),
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        Panel(
            "Open requests and uploads",
            "Requests being answered, and bodies being sent to peers.",
            "short",
            (
                Query(
                    f'sum by ($by) (http_requests_inflight{{handler="/v2/*",%node}} {_OURS})', f"{WHO} open requests"
                ),
                Query("sum by ($by) (speil_open_uploads{%node})", f"{WHO} uploads"),
            ),
        ),
        Panel(
            "Peers and clients sent elsewhere",
            "Uploads refused to peers, which ask another peer, and requests of others left to the upstream, by reason.",
            "ops",
            (
                Query(_rate("speil_refused_uploads_total{%node}", "reason"), f"{WHO} upload {{{{reason}}}}"),
                Query(_rate("speil_http_requests_refused_total{%node}", "reason"), f"{WHO} request {{{{reason}}}}"),
            ),
        ),
        Panel(
            "Uploads that waited for --upload-limit",
            "Seconds of waiting in a second, of all uploads of a node together.",
            "s",
            (Query(_rate("speil_upload_throttled_seconds_total{%node}"), WHO),),
        ),
        Panel(
            "Connections refused or closed",
            "At the registry port and the metrics port, by reason; invalid requests; bodies that a client read too slowly.",
            "ops",
            (
                Query(
                    _rate("speil_http_connections_refused_total{%node}", "port", "reason"),
                    f"{WHO} {{{{port}}}} {{{{reason}}}}",
                ),
                Query(_rate("speil_http_malformed_requests_total{%node}", "port"), f"{WHO} {{{{port}}}} malformed"),
                Query(_rate("speil_http_slow_bodies_total{%node}"), f"{WHO} slow body"),
            ),
        ),
        Panel(
            "DHT requests above a limit",
            "By whose limit it was, and the time that messages waited for their budget.",
            "ops",
            (
                Query(_rate("speil_dht_refused_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),
                Query(_rate("speil_dht_slowed_seconds_total{%node}"), f"{WHO} seconds waited"),
            ),
        ),
    ),
)

PROCESS = Row(
    "Process",
    (
        Panel(
            "CPU",
            "Seconds of CPU in a second: 1 is a whole core.",
            "none",
            (
                Query(
                    f"sum by ($by) (rate(process_cpu_seconds_total{{%node}}[$__rate_interval]) {_OURS})",
                    WHO,
                ),
            ),
        ),
        Panel(
            "Memory",
            "Resident memory of the largest process; shared pages of libraries count too.",
            "bytes",
            (Query(f"max by ($by) (process_resident_memory_bytes{{%node}} {_OURS})", WHO),),
        ),
        Panel(
            "File descriptors",
            "Open descriptors, as the part of the limit of the process, of the node with the most.",
            "percentunit",
            (Query(f"max by ($by) (process_open_fds{{%node}} / process_max_fds {_OURS})", WHO),),
        ),
        Panel(
            "Time since the start",
            "Of the youngest process: a saw shows restarts.",
            "s",
            (Query(f"time() - max by ($by) (process_start_time_seconds{{%node}} {_OURS})", WHO),),
            width=12,
        ),
        Panel(
            "Versions",
            "Nodes by the version that runs.",
            "short",
            (Query("count by (region, version) (speil_build_info{%node})", "{{region}} {{version}}"),),
            width=12,
        ),
    ),
    is_collapsed=True,
)

# The kubelet's series name its node, and so do speil's where the chart's monitors read them.
_OF_REGION = "* on (node) group_left (region, zone) group by (node, region, zone) (speil_store_available{%node})"
KUBELET = Row(
    "Kubelet",
    (
        Panel(
            "Pulls that failed",
            "Pulls of images that failed on nodes of the region, for any reason, by the kubelet's count. Needs the "
            "kubelet's metrics, and the label node on speil's series, which the chart's monitors set.",
            "ops",
            (
                Query(
                    'sum by (region, node) (rate(kubelet_runtime_operations_errors_total{operation_type="pull_image"}'
                    f"[$__rate_interval]) {_OF_REGION})",
                    "{{region}} {{node}}",
                ),
            ),
        ),
        Panel(
            "Pulls",
            "Pulls of images, by the kubelet's count. Needs the same as the panel beside it.",
            "ops",
            (
                Query(
                    'sum by (region, node) (rate(kubelet_runtime_operations_total{operation_type="pull_image"}'
                    f"[$__rate_interval]) {_OF_REGION})",
                    "{{region}} {{node}}",
                ),
            ),
        ),
        Panel(
            "Time of a pull, p95",
            "With the time in the kubelet's queue, by size of the image. Needs the same as the panels beside it.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (region, image_size_in_bytes, le) "
                    f"(rate(kubelet_image_pull_duration_seconds_bucket[$__rate_interval]) {_OF_REGION}))",
                    "{{region}} {{image_size_in_bytes}}",
                ),
            ),
        ),
    ),
    is_collapsed=True,
)

ROWS = (OVERVIEW, PULLS, PEERS, ANNOUNCING, ELECTION, BORDER, LOAD, PROCESS, KUBELET)
