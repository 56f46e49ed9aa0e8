"""Each value of the chart has an effect: it alone changes something in the rendered objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from scripts.generate_chart_readme import described

from tests.chart.rendering import Values, render

pytestmark = pytest.mark.requires("helm")
POOL = [{"matchExpressions": [{"key": "example.org/pool", "operator": "Exists"}]}]
BY_NODE = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": POOL}}


@dataclass(frozen=True)
class Group:
    """Values that are tried together, on top of `base`: each with what it alone must bring in."""

    name: str
    base: Values
    tried: dict[str, tuple[Any, str]]


GROUPS = (
    Group(
        "a region",
        {"region": "eu", "service": {"registry": {"nodePort": 31000}}},
        {
            "leaderElectionName": ("own-lease", "value: own-lease"),
            "leaderElectionNamespace": ("own-namespace", "value: own-namespace"),
            "createNamespace": (True, "helm.sh/resource-policy: keep"),
            "zone": ("zone-1", "name: ZONE"),
            "regionNetworks": (["10.9.0.0/16"], "--region-networks=10.9.0.0/16"),
            "topologyFromNode": (True, "name: TOPOLOGY_FROM_NODE"),
            "regionSecret.value": ("a-secret-of-my-own", "YS1zZWNyZXQtb2YtbXktb3du"),
            "regionSecret.key": ("psk", "/etc/secrets/region/psk"),
            "image.repository": ("registry.example.org/speil", "image: registry.example.org/speil"),
            "image.pullPolicy": ("Always", "imagePullPolicy: Always"),
            "image.tag": ("9.9.9", ":9.9.9"),
            "imagePullSecrets": ([{"name": "pull-me"}], "name: pull-me"),
            "namespaceOverride": ("elsewhere", "namespace: elsewhere"),
            "nameOverride": ("mirror-of-ours", "name: speil-mirror-of-ours"),
            "serviceAccount.annotations": ({"example.org/a": "account"}, "example.org/a: account"),
            "serviceAccount.name": ("its-account", "serviceAccountName: its-account"),
            "daemonsetAnnotations": ({"example.org/b": "daemonset"}, "example.org/b: daemonset"),
            "podAnnotations": ({"example.org/c": "pod"}, "example.org/c: pod"),
            "podLabels": ({"example.org/cost": "platform"}, "example.org/cost: platform"),
            "startupProbe.initialDelaySeconds": (17, "initialDelaySeconds: 17"),
            "startupProbe.periodSeconds": (18, "periodSeconds: 18"),
            "startupProbe.timeoutSeconds": (19, "timeoutSeconds: 19"),
            "startupProbe.failureThreshold": (181, "failureThreshold: 181"),
            "readinessProbe.periodSeconds": (27, "periodSeconds: 27"),
            "readinessProbe.timeoutSeconds": (28, "timeoutSeconds: 28"),
            "readinessProbe.failureThreshold": (29, "failureThreshold: 29"),
            "livenessProbe.periodSeconds": (37, "periodSeconds: 37"),
            "livenessProbe.timeoutSeconds": (38, "timeoutSeconds: 38"),
            "livenessProbe.failureThreshold": (39, "failureThreshold: 39"),
            "extraEnv": ([{"name": "ROUTER_DIAL_PORTS", "value": "5009"}], "name: ROUTER_DIAL_PORTS"),
            "extraArgs": (["--router-dial-ports=5008"], "- --router-dial-ports=5008"),
            "dnsConfig": ({"options": [{"name": "ndots", "value": "1"}]}, "name: ndots"),
            "podSecurityContext": ({"fsGroup": 4711}, "fsGroup: 4711"),
            "securityContext": ({"runAsGroup": 4712}, "runAsGroup: 4712"),
            "revisionHistoryLimit": (77, "revisionHistoryLimit: 77"),
            "service.registry.nodeIp": ("127.0.0.7", "value: 127.0.0.7"),
            "service.registry.port": (5678, "--registry-addr=:5678"),
            "service.registry.hostPort": (30999, "hostPort: 30999"),
            "service.registry.nodePort": (31234, "nodePort: 31234"),
            "service.registry.annotations": ({"example.org/d": "registry"}, "example.org/d: registry"),
            "service.registry.topologyAwareHintsEnabled": (True, "topology-mode: auto"),
            "service.registry.usePreferSameNodeTrafficDistribution": (True, "trafficDistribution: PreferSameNode"),
            "service.router.port": (5679, "--router-addr=:5679"),
            "service.metrics.port": (9999, "--metrics-addr=:9999"),
            "service.metrics.annotations": ({"example.org/e": "metrics"}, "example.org/e: metrics"),
            "service.cleanup.port": (8888, "--addr=:8888"),
            "cleanup.timeoutSeconds": (111, "--timeout=111s"),
            "resources": ({"limits": {"memory": "333Mi"}}, "memory: 333Mi"),
            "initResources": ({"limits": {"memory": "334Mi"}}, "memory: 334Mi"),
            "hookResources": ({"limits": {"memory": "335Mi"}}, "memory: 335Mi"),
            "nodeSelector": ({"example.org/site": "here"}, "example.org/site: here"),
            "updateStrategy": ({"type": "OnDelete"}, "type: OnDelete"),
            "tolerations": ([{"key": "example.org/taint", "operator": "Exists"}], "key: example.org/taint"),
            "affinity": ({"nodeAffinity": BY_NODE}, "key: example.org/pool"),
            "commonLabels": ({"example.org/team": "ours"}, "example.org/team: ours"),
            "priorityClassName": ("important", "priorityClassName: important"),
            "basicAuthSecretName": ("credentials", "secretName: credentials"),
            "networkPolicy.apiServerPorts": ([8443], "port: 8443"),
            "networkPolicy.registryFrom": ([{"ipBlock": {"cidr": "10.77.0.0/16"}}], "cidr: 10.77.0.0/16"),
            "networkPolicy.metricsFrom": ([{"ipBlock": {"cidr": "10.78.0.0/16"}}], "cidr: 10.78.0.0/16"),
            "networkPolicy.extraIngress": ([{"ports": [{"port": 7001}]}], "port: 7001"),
            "networkPolicy.extraEgress": ([{"ports": [{"port": 7002}]}], "port: 7002"),
            "extraVolumes": ([{"name": "more", "emptyDir": {}}], "name: more"),
            "extraInitContainers": ([{"name": "before", "image": "busybox"}], "name: before"),
            "spegel.logLevel": ("DEBUG", "--log-level=DEBUG"),
            "spegel.persistence.path": ("/data-inside", "--data-dir=/data-inside"),
            "spegel.persistence.hostPath": ("/data-outside", "path: /data-outside"),
            "spegel.mirroredRegistries": (["https://docker.io"], "--mirrored-registries=https://docker.io"),
            "spegel.additionalMirrorTargets": (["https://m.example.org"], "--mirror-targets=https://m.example.org"),
            "spegel.mirrorResolveRetries": (7, "--mirror-resolve-retries=7"),
            "spegel.mirrorResolveTimeout": ("70ms", "--mirror-resolve-timeout=70ms"),
            "spegel.containerdSock": ("/run/k3s/c.sock", "--containerd-sock=/run/k3s/c.sock"),
            "spegel.containerdNamespace": ("moby", "--containerd-namespace=moby"),
            "spegel.containerdRegistryConfigPath": ("/etc/own", "--containerd-registry-config-path=/etc/own"),
            "spegel.containerdContentPath": ("/content", "--containerd-content-path=/content"),
            "spegel.resolveTags": (False, "--resolve-tags=false"),
            "spegel.registryFilters": (["^docker\\.io/a"], "--registry-filters=^docker\\.io/a"),
            "spegel.prependExisting": (True, "--prepend-existing=true"),
            "spegel.debugWebEnabled": (False, "--debug-web-enabled=false"),
            "spegel.kubeconfigPath": ("/etc/kubeconfig", "--kubeconfig-path=/etc/kubeconfig"),
            "speil.logFormat": ("text", "--log-format=text"),
            "speil.uploadsMax": (7, "--uploads-max=7"),
            "speil.uploadsPerPeerMax": (5, "--uploads-per-peer-max=5"),
            "speil.uploadLimit": ("70MiB", "--upload-limit=70MiB"),
            "speil.verifyBytesMax": ("2MiB", "--verify-bytes-max=2MiB"),
            "speil.verifyMemoryMax": ("16MiB", "--verify-memory-max=16MiB"),
            "speil.zeroCopy": (False, "--zero-copy=false"),
            "speil.shareWait": ("5s", "--share-wait=5s"),
            "speil.debugWebHosts": (["speil.example.org"], "--debug-web-hosts=speil.example.org"),
            "speil.defaultRegistry": ("ghcr.io", "--default-registry=ghcr.io"),
            "speil.leaseDuration": ("30s", "--lease-duration=30s"),
            "speil.renewDeadline": ("20s", "--renew-deadline=20s"),
            "speil.retryPeriod": ("4s", "--retry-period=4s"),
        },
    ),
    Group(
        "what is switched on",
        {
            "keepToRegion": False,
            "networkPolicy": {"egress": False},
            "livenessProbe": {"enabled": False},
            "spegel": {"persistence": {"enabled": False}, "containerdMirrorAdd": False},
        },
        {
            "region": ("eu", "name: REGION"),
            "keepToRegion": (True, "operator: DoesNotExist"),
            "regionSecret.existingSecret": ("there-already", "secretName: there-already"),
            "networkPolicy.enabled": (True, "kind: NetworkPolicy"),
            "networkPolicy.egress": (True, "- Egress"),
            "spegel.persistence.enabled": (True, "--data-dir="),
            "spegel.containerdMirrorAdd": (True, "helm.sh/hook: post-delete"),
            "livenessProbe.enabled": (True, "livenessProbe"),
            "image.digest": (f"sha256:{'a' * 64}", f"@sha256:{'a' * 64}"),
            "fullnameOverride": ("called-this", "name: called-this"),
            "speil.dhtProtocolPrefix": ("/spegel", "--dht-protocol-prefix=/spegel"),
        },
    ),
    Group("a secret", {}, {"regionSecret.generate": (True, "secretName: speil-region")}),
    Group(
        "dns",
        {"bootstrapKind": "dns"},
        {
            "service.bootstrap.annotations": ({"example.org/g": "bootstrap"}, "example.org/g: bootstrap"),
            "clusterDomain": ("cluster.example.", "svc.cluster.example."),
        },
    ),
    Group(
        "another kind",
        {},
        {
            "bootstrapKind": ("dns", "--bootstrap-kind=dns"),
            "dnsBootstrapDomain": ("peers.example.org.", "--dns-bootstrap-domain=peers.example.org."),
        },
    ),
    Group(
        "http",
        {"bootstrapKind": "http", "httpBootstrapPeer": "http://10.0.0.8/id"},
        {
            "httpBootstrapAddr": (":5002", "--http-bootstrap-addr=:5002"),
            "httpBootstrapPeer": ("http://10.0.0.7/id", "--http-bootstrap-peer=http://10.0.0.7/id"),
        },
    ),
    Group(
        "static",
        {"bootstrapKind": "static", "staticBootstrapPeers": ["/ip4/10.0.0.8/tcp/5001"]},
        {"staticBootstrapPeers": (["/ip4/10.0.0.7/tcp/5001"], "--static-bootstrap-peers=/ip4/10.0.0.7/tcp/5001")},
    ),
    Group("regions", {}, {"regions": ([{"name": "r1"}], "name: speil-r1")}),
    Group(
        "the operators",
        {},
        {
            "serviceMonitor.enabled": (True, "kind: ServiceMonitor"),
            "serviceMonitor.interval": ("17s", "interval: 17s"),
            "serviceMonitor.scrapeTimeout": ("16s", "scrapeTimeout: 16s"),
            "serviceMonitor.labels": ({"l": "monitor"}, "l: monitor"),
            "serviceMonitor.relabelings": ([{"targetLabel": "t1"}], "targetLabel: t1"),
            "serviceMonitor.metricRelabelings": ([{"targetLabel": "t2"}], "targetLabel: t2"),
            "podMonitor.enabled": (True, "kind: PodMonitor"),
            "podMonitor.interval": ("27s", "interval: 27s"),
            "podMonitor.scrapeTimeout": ("26s", "scrapeTimeout: 26s"),
            "podMonitor.labels": ({"l": "pod-monitor"}, "l: pod-monitor"),
            "podMonitor.relabelings": ([{"targetLabel": "t3"}], "targetLabel: t3"),
            "podMonitor.metricRelabelings": ([{"targetLabel": "t4"}], "targetLabel: t4"),
            "prometheusRule.enabled": (True, "kind: PrometheusRule"),
            "prometheusRule.labels": ({"l": "rule"}, "l: rule"),
            "grafanaDashboard.enabled": (True, "speil-dashboard"),
            "grafanaDashboard.mode": ("GrafanaOperator", "kind: GrafanaDashboard"),
            "grafanaDashboard.labels": ({"l": "dashboard"}, "l: dashboard"),
            "grafanaDashboard.annotations": ({"a": "dashboard"}, "a: dashboard"),
            "grafanaDashboard.grafanaOperator.allowCrossNamespaceImport": (False, "CrossNamespaceImport: false"),
            "grafanaDashboard.grafanaOperator.folder": ("mirrors", "folder: mirrors"),
            "grafanaDashboard.grafanaOperator.resyncPeriod": ("7m", "resyncPeriod: 7m"),
            "grafanaDashboard.grafanaOperator.matchLabels": ({"g": "ours"}, "g: ours"),
            "verticalPodAutoscaler.enabled": (True, "kind: VerticalPodAutoscaler"),
            "verticalPodAutoscaler.recommenders": ([{"name": "own"}], "name: own"),
            "verticalPodAutoscaler.controlledResources": (["memory"], "controlledResources"),
            "verticalPodAutoscaler.controlledValues": ("RequestsOnly", "controlledValues: RequestsOnly"),
            "verticalPodAutoscaler.maxAllowed": ({"memory": "999Mi"}, "memory: 999Mi"),
            "verticalPodAutoscaler.minAllowed": ({"memory": "99Mi"}, "memory: 99Mi"),
            "verticalPodAutoscaler.updatePolicy.minReplicas": (9, "minReplicas: 9"),
            "verticalPodAutoscaler.updatePolicy.updateMode": ("Initial", "updateMode: Initial"),
        },
    ),
)
# what only a cluster shows: tests/system/kube/test_chart_cluster.py
IN_A_CLUSTER = {"namespaceCheck", "prepull.enabled", "prepull.timeoutSeconds"}
# taken over from Spegel; NOTES says so
WITHOUT_EFFECT = {"service.cleanup.annotations"}


def test_every_value_is_tried() -> None:
    tried = {path for group in GROUPS for path in group.tried}
    known = {value.path for value in described()}
    assert known - tried == IN_A_CLUSTER | WITHOUT_EFFECT
    assert tried - known == set()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_values_bring_in_what_they_should(group: Group) -> None:
    changed: Values = group.base
    for path, (value, _) in group.tried.items():
        changed = _merged(changed, _nested(path, value))
    before, after = (yaml.safe_dump_all(render(values).all, width=1000) for values in (group.base, changed))
    for path, (_, brought_in) in group.tried.items():
        assert brought_in in after, path
        assert brought_in not in before, path


def _nested(path: str, value: Any) -> Values:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def _merged(values: Values, more: Values) -> dict[str, Any]:
    merged = dict(values)
    for key, value in more.items():
        inner = merged.get(key)
        # a leaf that is a mapping replaces nothing of ours: no group has two of one key
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
