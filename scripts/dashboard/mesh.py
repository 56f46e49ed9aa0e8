"""The nodes of a region among themselves: peers, announcements, election, border."""

from __future__ import annotations

from scripts.dashboard.panel import Panel, Query, Row
from scripts.dashboard.promql import WHO, quantile, rate

PEERS = Row(
    "Peers",
    (
        Panel(
            "Requests to peers",
            "By outcome. busy: the peer has no free upload. own_limit: this node lacks descriptors or ports.",
            "reqps",
            (Query(rate("speil_peer_requests_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "Peers that failed or erred",
            "Bodies that another peer continued, peers banned for wrong bytes, and content missing in the store.",
            "ops",
            (
                Query(rate("speil_resumed_transfers_total{%node}"), f"{WHO} continued elsewhere"),
                Query(rate("speil_peer_bans_total{%node}"), f"{WHO} banned"),
                Query(rate("speil_missing_content_total{%node}"), f"{WHO} missing in the store"),
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
                    quantile(part, "spegel_resolve_duration_seconds_bucket{%node}"),
                    f"{WHO} p{round(part * 100)}",
                )
                for part in (0.5, 0.95)
            ),
        ),
        Panel(
            "Lookups",
            "Of providers, by outcome. empty: no node of the region has the content.",
            "ops",
            (Query(rate("speil_lookups_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
        ),
        Panel(
            "DHT messages",
            "By direction and type.",
            "ops",
            (
                Query(
                    rate("speil_dht_messages_total{%node}", "direction", "type"),
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
                    quantile(part, "speil_announcement_delay_seconds_bucket{%node}"),
                    f"{WHO} p{round(part * 100)}",
                )
                for part in (0.5, 0.95)
            ),
        ),
        Panel(
            "Keys whose turn came",
            "skipped: enough other nodes provide it. failed: no node took the record; it is sent again. alone: there "
            "is no other node.",
            "ops",
            (Query(rate("speil_announced_keys_total{%node}", "outcome"), f"{WHO} {{{{outcome}}}}"),),
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
                Query(rate("speil_store_events_total{%node}", "kind"), f"{WHO} event {{{{kind}}}}"),
                Query(rate("speil_store_looks_total{%node}", "reason"), f"{WHO} scan {{{{reason}}}}"),
            ),
        ),
        Panel(
            "Stores that answer",
            "The part of the nodes that can read their content store. Below 100 % see whether containerd is up.",
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
                    rate("speil_election_requests_total{%node}", "verb", "outcome"),
                    f"{WHO} {{{{verb}}}} {{{{outcome}}}}",
                ),
            ),
        ),
        Panel(
            "Events of the election",
            "acquired, renewed, lost, new_leader and others.",
            "ops",
            (Query(rate("speil_election_events_total{%node}", "event"), f"{WHO} {{{{event}}}}"),),
        ),
        Panel(
            "Attempts to find first peers",
            "By kind of bootstrap and outcome.",
            "ops",
            (
                Query(
                    rate("speil_bootstrap_attempts_total{%node}", "kind", "outcome"),
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
            (Query(rate("speil_cross_region_rejected_total{%node}", "layer"), f"{WHO} {{{{layer}}}}"),),
        ),
        Panel(
            "libp2p connections closed",
            "Connections and streams that were closed for what the peer did, by reason.",
            "ops",
            (Query(rate("speil_rejected_connections_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),),
        ),
        Panel(
            "Addresses not dialed",
            "Addresses named by peers that nodes do not dial, by reason.",
            "ops",
            (Query(rate("speil_dials_refused_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),),
        ),
    ),
)
