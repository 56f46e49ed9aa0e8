"""What a node does and costs: load, process, and the kubelet beside it."""

from __future__ import annotations

from scripts.dashboard.panel import Panel, Query, Row
from scripts.dashboard.promql import OURS, WHO, rate

LOAD = Row(
    "Load",
    (
        Panel(
            "Open requests and uploads",
            "Requests being answered, and bodies being sent to peers.",
            "short",
            (
                Query(f'sum by ($by) (http_requests_inflight{{handler="/v2/*",%node}} {OURS})', f"{WHO} open requests"),
                Query("sum by ($by) (speil_open_uploads{%node})", f"{WHO} uploads"),
            ),
        ),
        Panel(
            "Peers and clients sent elsewhere",
            "Uploads refused to peers, which ask another peer, and requests of others left to the upstream, by reason.",
            "ops",
            (
                Query(rate("speil_refused_uploads_total{%node}", "reason"), f"{WHO} upload {{{{reason}}}}"),
                Query(rate("speil_http_requests_refused_total{%node}", "reason"), f"{WHO} request {{{{reason}}}}"),
            ),
        ),
        Panel(
            "Uploads that waited for --upload-limit",
            "Seconds of waiting in a second, of all uploads of a node together.",
            "s",
            (Query(rate("speil_upload_throttled_seconds_total{%node}"), WHO),),
        ),
        Panel(
            "Connections refused or closed",
            "At the registry port and the metrics port, by reason; invalid requests; bodies read too slowly.",
            "ops",
            (
                Query(
                    rate("speil_http_connections_refused_total{%node}", "port", "reason"),
                    f"{WHO} {{{{port}}}} {{{{reason}}}}",
                ),
                Query(rate("speil_http_malformed_requests_total{%node}", "port"), f"{WHO} {{{{port}}}} malformed"),
                Query(rate("speil_http_slow_bodies_total{%node}"), f"{WHO} slow body"),
            ),
        ),
        Panel(
            "DHT requests above a limit",
            "By whose limit it was, and the time that messages waited for their budget.",
            "ops",
            (
                Query(rate("speil_dht_refused_total{%node}", "reason"), f"{WHO} {{{{reason}}}}"),
                Query(rate("speil_dht_slowed_seconds_total{%node}"), f"{WHO} seconds waited"),
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
                    f"sum by ($by) (rate(process_cpu_seconds_total{{%node}}[$__rate_interval]) {OURS})",
                    WHO,
                ),
            ),
        ),
        Panel(
            "Memory",
            "Resident memory of the largest process; shared pages of libraries count too.",
            "bytes",
            (Query(f"max by ($by) (process_resident_memory_bytes{{%node}} {OURS})", WHO),),
        ),
        Panel(
            "File descriptors",
            "Open descriptors, as the part of the limit of the process, of the node with the most.",
            "percentunit",
            (Query(f"max by ($by) (process_open_fds{{%node}} / process_max_fds {OURS})", WHO),),
        ),
        Panel(
            "Time since the start",
            "Of the youngest process: a saw shows restarts.",
            "s",
            (Query(f"time() - max by ($by) (process_start_time_seconds{{%node}} {OURS})", WHO),),
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
            "Pulls of the kubelet",
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
