"""Regions as the chart renders them: which names, which nodes, which rights; and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from speil.region.identity import identify
from speil.region.label import RegionError
from tests.chart.rendering import Manifest, Objects, RefusedError, Values, environment, notes, render

pytestmark = pytest.mark.requires("helm")
REGION = "topology.kubernetes.io/region"
TWO: Values = {"regions": [{"name": "regiona"}, {"name": "regionb"}]}


@pytest.fixture(scope="module")
def two() -> Objects:
    """One release for two regions."""
    return render(TWO)


def pod_of(objects: Objects, name: str = "", *, hooks: bool = False) -> Manifest:
    """The specification of a DaemonSet's pods."""
    pod: Manifest = objects.only("DaemonSet", name, hooks=hooks)["spec"]["template"]["spec"]
    return pod


def terms_of(pod: Manifest) -> list[Any]:
    """What the node has to be like, one of these."""
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return list(required["nodeSelectorTerms"])


def test_each_region_has_everything_of_its_own(two: Objects) -> None:
    for kind in ("ServiceAccount", "Role", "RoleBinding", "DaemonSet", "Service", "NetworkPolicy"):
        assert len(two.of(kind)) == 2, kind
        assert {one["metadata"]["labels"]["speil.dev/region"] for one in two.of(kind)} == {"regiona", "regionb"}
    assert two.names().isdisjoint(render(TWO, release="other").names())


def test_a_region_runs_on_its_own_nodes_and_selects_its_own_pods(two: Objects) -> None:
    for region in ("regiona", "regionb"):
        name = f"speil-{region}"
        daemon_set = two.only("DaemonSet", name)
        pod = pod_of(two, name)
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", REGION: region}
        labels = daemon_set["spec"]["template"]["metadata"]["labels"]
        selector = daemon_set["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
        assert selector["speil.dev/region"] == region
        assert labels["app.kubernetes.io/name"] == "speil", "`speil region` finds nodes by it"
        assert two.only("Service", f"{name}-metrics")["spec"]["selector"] == selector
        policy = two.only("NetworkPolicy", name)["spec"]
        assert policy["podSelector"]["matchLabels"] == selector
        assert policy["ingress"][0]["from"] == policy["egress"][0]["to"] == [{"podSelector": {"matchLabels": selector}}]
        assert {port["port"] for port in policy["ingress"][0]["ports"]} == {5000, 5001}


def test_cleaning_up_stays_on_the_nodes_of_the_region(two: Objects) -> None:
    nodes = {one["metadata"]["name"]: one for one in two.of("DaemonSet")}
    for hook in two.of("DaemonSet", hooks=True):
        assert hook["metadata"]["annotations"]["helm.sh/hook"] == "post-delete"
        pod, labels = hook["spec"]["template"]["spec"], hook["spec"]["template"]["metadata"]["labels"]
        node = nodes[hook["metadata"]["name"].removesuffix("-cleanup")]
        for key in ("nodeSelector", "tolerations"):
            assert pod[key] == node["spec"]["template"]["spec"][key]
        assert labels["app.kubernetes.io/name"] != "speil", "nobody takes it for a node"
        name = hook["metadata"]["name"]
        waiting = two.only("Job", f"{name}-wait", hooks=True)
        container = waiting["spec"]["template"]["spec"]["containers"][0]
        region = name.removeprefix("speil-").removesuffix("-cleanup")
        assert f"--daemonset=mirror/{name}" in container["args"]
        assert f"--lease=spegel-{region}/spegel-leader-election-{region}" in container["args"]
        assert waiting["metadata"]["labels"]["app.kubernetes.io/name"] != "speil"
        assert int(waiting["metadata"]["annotations"]["helm.sh/hook-weight"]) > 0


def test_whoever_waits_for_the_cleanup_leaves_a_node_that_goes_down(two: Objects) -> None:
    """It prefers the region's nodes, which have its image, and no toleration keeps it on a dead one."""
    for job in two.of("Job", hooks=True):
        pod = job["spec"]["template"]["spec"]
        assert "podFailurePolicy" not in job["spec"], "with it a pod is replaced when its node says that it has ended"
        assert job["spec"]["backoffLimit"] == 1
        seconds = job["spec"]["activeDeadlineSeconds"]
        assert "--since-creation" in pod["containers"][0]["args"]
        assert f"--timeout={seconds - 60}s" in pod["containers"][0]["args"]
        assert pod["terminationGracePeriodSeconds"] == 0
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in pod["affinity"]["nodeAffinity"]
        no_execute = [one for one in pod["tolerations"] if one.get("effect", "NoExecute") == "NoExecute"]
        assert {one["key"]: one.get("tolerationSeconds") for one in no_execute} == {
            "node.kubernetes.io/not-ready": 0,
            "node.kubernetes.io/unreachable": 0,
            "node-role.kubernetes.io/control-plane": None,
            "CriticalAddonsOnly": None,
        }


def test_no_toleration_of_the_values_keeps_whoever_waits_on_a_node_that_is_down() -> None:
    down = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists"} for key in ("unreachable", "not-ready")]
    ours = {"key": "example.org/taint", "operator": "Exists"}
    job = render({"region": "eu", "tolerations": [*down, ours]}).only("Job", hooks=True)
    tolerations = job["spec"]["template"]["spec"]["tolerations"]
    assert ours in tolerations
    assert not [one for one in tolerations if one in down]


def test_what_the_hooks_may_do_is_about_their_own_objects(two: Objects) -> None:
    for role in two.of("Role", hooks=True):
        for rule in role["rules"]:
            named = rule.get("resourceNames")
            assert named or (rule["resources"], rule["verbs"]) == (["pods"], ["list"])
            assert "*" not in rule["verbs"]


def test_cleaning_up_has_the_placement_of_the_nodes(two: Objects) -> None:
    assert len(two.of("DaemonSet", hooks=True)) == 2
    single = render({"region": "eu"})
    assert terms_of(pod_of(single, hooks=True)) == terms_of(pod_of(single))


def test_a_secret_is_each_regions_own(two: Objects) -> None:
    for region in ("regiona", "regionb"):
        pod = pod_of(two, f"speil-{region}")
        (volume,) = (one for one in pod["volumes"] if one["name"] == "region-secret")
        assert volume["secret"]["secretName"] == f"speil-{region}-region"
        assert volume["secret"]["defaultMode"] == 0o400
        assert "optional" not in volume["secret"], "a pod without the secret would not start; it would be a stranger"
        for container in (*pod["initContainers"], *pod["containers"]):
            (mount,) = (one for one in container["volumeMounts"] if one["name"] == "region-secret")
            assert environment(container)["REGION_SECRET_FILE"] == f"{mount['mountPath']}/secret"


def test_what_a_region_says_itself_wins(two: Objects) -> None:
    one = {
        "name": "edge",
        "zone": "edge-1",
        "nodeSelector": {"example.org/pool": "edge"},
        "tolerations": [],
        "leaderElectionName": "lease-edge",
        "leaderElectionNamespace": "mirrors-edge",
        "createNamespace": False,
        "bootstrapKind": "kubernetes",
        "regionNetworks": ["10.3.0.0/16"],
        "regionSecret": {"existingSecret": "edge-key", "key": "psk"},
        "nodePort": 31021,
    }
    values = {"createNamespace": True, "zone": "z", "bootstrapKind": "dns", "regionNetworks": ["10.0.0.0/8"]}
    objects = render({**values, "regions": [one, {"name": "other"}]})
    pod = pod_of(objects, "speil-edge")
    environ = environment(pod["containers"][0])
    assert (environ["REGION"], environ["ZONE"]) == ("edge", "edge-1")
    assert (environ["LEADER_ELECTION_NAME"], environ["LEADER_ELECTION_NAMESPACE"]) == ("lease-edge", "mirrors-edge")
    assert environ["REGION_SECRET_FILE"] == "/etc/secrets/region/psk"
    assert "--region-networks=10.3.0.0/16" in pod["containers"][0]["args"]
    assert "--region-networks=10.0.0.0/8" not in pod["containers"][0]["args"]
    assert "tolerations" not in pod
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "example.org/pool": "edge"}
    assert objects.only("Service", "speil-edge-registry")["spec"]["ports"][0]["nodePort"] == 31021
    assert [one["metadata"]["name"] for one in objects.of("Namespace")] == [], "dns needs none, and edge wants none"
    other = pod_of(objects, "speil-other")
    assert environment(other["containers"][0])["ZONE"] == "z"
    domain = "--dns-bootstrap-domain=speil-other-bootstrap.mirror.svc.cluster.local."
    assert domain in other["containers"][0]["args"]
    assert objects.only("Service", "speil-other-bootstrap")["spec"]["publishNotReadyAddresses"] is True


def test_a_known_region_is_kept_off_the_nodes_of_others() -> None:
    alone = [
        {"matchExpressions": [{"key": REGION, "operator": "In", "values": ["regiona"]}]},
        {"matchExpressions": [{"key": REGION, "operator": "DoesNotExist"}]},
    ]
    names = {"leaderElectionName": "spegel-leader-election-regiona", "leaderElectionNamespace": "spegel-regiona"}
    assert terms_of(pod_of(render(names))) == alone
    wanted = [
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}], "matchFields": [{"key": "metadata.name"}]},
        {"matchExpressions": [{"key": "big", "operator": "Exists"}]},
    ]
    own = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": wanted}}}
    both = terms_of(pod_of(render({**names, "affinity": {**own, "podAffinity": {}}})))
    assert len(both) == 4
    assert {term["matchExpressions"][0]["key"] for term in both} == {"gpu", "big"}
    assert all(term["matchExpressions"][1]["key"] == REGION for term in both)
    assert sum("matchFields" in term for term in both) == 2
    assert "affinity" not in pod_of(render({**names, "nodeSelector": {REGION: "eu-west-1"}}))
    assert "affinity" not in pod_of(render({**names, "keepToRegion": False}))


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("spegel-leader-election-regiona", "spegel-regiona"),
        ("spegel-leader-election-eu-west-1", "spegel-eu-west-1"),
        ("spegel-leader-election", "spegel"),
        ("spegel-leader-election-eu", "spegel"),
        ("spegel-leader-election", "spegel-eu"),
        ("lease-us-east-1", "mirrors-us-east-1"),
        ("lease-us-east-1", "mirrors-us-west-1"),
        ("a-b-c", "x-b-c"),
        ("lease.x-eu", "ns-eu"),
        ("spegel-leader-election-eu.x", "spegel-eu"),
        ("spegel-leader-election-a-b", "other-a-b"),
        ("lease", "ns"),
        ("-eu", "x-eu"),
    ],
)
def test_the_chart_reads_names_as_the_node_does(name: str, namespace: str) -> None:
    values = {"leaderElectionName": name, "leaderElectionNamespace": namespace}
    try:
        region = identify(lease_name=name, lease_namespace=namespace).region
    except RegionError:
        with pytest.raises(RefusedError):
            render(values)
        return
    labels = render(values).only("DaemonSet")["metadata"]["labels"]
    assert labels.get("speil.dev/region", "") == region


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"leaderElectionName": "spegel-leader-election-east", "leaderElectionNamespace": "spegel-west"},
            "leaderElectionName spegel-leader-election-east reads as region east, "
            "leaderElectionNamespace spegel-west as region west",
        ),
        (
            {
                "region": "b",
                "leaderElectionName": "spegel-leader-election-a",
                "leaderElectionNamespace": "spegel-a",
            },
            "region is b, and leaderElectionName spegel-leader-election-a and leaderElectionNamespace spegel-a read as "
            "region a",
        ),
        ({"regions": [{"name": "a"}, {"name": "a"}]}, "region a is named twice"),
        (
            {
                "regions": [
                    {"name": "a", "leaderElectionName": "l", "leaderElectionNamespace": "n"},
                    {"name": "b", "leaderElectionName": "l", "leaderElectionNamespace": "n"},
                ]
            },
            "regions a and b have the same Lease n/l",
        ),
        ({"regions": [{"name": "a"}], "region": "a"}, "at the top empty"),
        ({"regions": [{"name": "a"}], "leaderElectionName": "x"}, "at the top empty"),
        ({**TWO, "service": {"registry": {"nodePort": 30021}}}, "regions regiona and regionb have the same node port"),
        ({"region": "r" * 57}, "too long for its namespace"),
        ({"region": "a", "service": {"registry": {"hostPort": 0}}}, "containerd needs a way to its node"),
        ({"bootstrapKind": "static"}, "needs staticBootstrapPeers"),
        ({"bootstrapKind": "http"}, "needs httpBootstrapPeer"),
        ({"regionSecret": {"value": "x" * 20, "existingSecret": "y"}}, "give one"),
        ({"regionSecret": {"value": "short"}}, "line 1 of regionSecret.value has 5 characters"),
        ({"regionSecret": {"value": f"{'x' * 20}\n{'x' * 20}"}}, "the same line twice"),
        ({"regionSecret": {"value": "\n".join(f"{n:020}" for n in range(9))}}, "has 9 lines"),
        ({"spegel": {"registries": ["https://a.b"], "mirroredRegistries": ["https://a.b"]}}, "old name of"),
        (
            {"spegel": {"additionalMirrorRegistries": ["https://a.b"], "additionalMirrorTargets": ["https://a.b"]}},
            "old name of",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_not_work_is_refused_with_a_reason(values: Values, words: str) -> None:
    with pytest.raises(RefusedError) as raised:
        render(values)
    assert words in str(raised.value)


def test_a_secret_of_a_region_that_only_the_node_tells_is_refused_in_old_clusters() -> None:
    values = {"regionSecret": {"value": "x" * 20}}
    render(values, kube="1.35.0")
    with pytest.raises(RefusedError, match="needs the region's name"):
        render(values, kube="1.34.9")


def test_old_clusters_read_the_labels_from_the_node() -> None:
    old, new = render({"region": "eu"}, kube="1.34.2"), render({"region": "eu"}, kube="1.35.0")
    assert environment(pod_of(old)["containers"][0])["TOPOLOGY_FROM_NODE"] == "true"
    role, binding = old.only("ClusterRole"), old.only("ClusterRoleBinding")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    assert binding["subjects"][0]["name"] == old.only("ServiceAccount")["metadata"]["name"]
    assert "mirror" in role["metadata"]["name"], "two releases of one name in two namespaces"
    assert not new.of("ClusterRole")
    labels = {REGION: "eu", "topology.kubernetes.io/zone": "eu-1a"}
    environ = environment(pod_of(new)["containers"][0], labels)
    assert (environ["TOPOLOGY_REGION"], environ["TOPOLOGY_ZONE"]) == ("eu", "eu-1a")


def test_the_label_reaches_a_node_of_the_documented_install_and_the_region_is_not_set_outright() -> None:
    names = {"leaderElectionName": "spegel-leader-election-eu", "leaderElectionNamespace": "spegel-eu"}
    pod = pod_of(render({"bootstrapKind": "kubernetes", **names}, kube="1.35.0"))
    for container in (*pod["initContainers"], *pod["containers"]):
        environ = environment(container, {REGION: "eu-1"})
        if "NODE_NAME" in environ:
            assert environ["TOPOLOGY_REGION"] == "eu-1"
            assert "REGION" not in environ, "then the label would not be asked"
    told = identify(
        lease_name=names["leaderElectionName"], lease_namespace=names["leaderElectionNamespace"], region_label="eu-1"
    )
    assert (told.region, told.label) == ("eu", "eu-1")


REGION_AND_NAMES = [
    ("a", "spegel-leader-election-a", "spegel-a"),
    ("b", "spegel-leader-election-a", "spegel-a"),
    ("b", "spegel-leader-election-a", "kube-system"),
    ("b", "spegel-leader-election-a", "spegel-b"),
    ("b", "spegel-leader-election-a", ""),
    ("a", "my-spegel-a", "your-spegel-a"),
    ("eu", "lock-eu-prod", "team-eu-prod"),
    ("b", "", "spegel-system"),
    ("a", "spegel-leader-election", "spegel"),
]


@pytest.mark.parametrize(("region", "name", "namespace"), REGION_AND_NAMES)
def test_the_chart_refuses_a_region_beside_names_as_the_node_does(region: str, name: str, namespace: str) -> None:
    values = {"region": region, "leaderElectionName": name, "leaderElectionNamespace": namespace}
    try:
        identify(region=region, lease_name=name, lease_namespace=namespace)
    except RegionError:
        with pytest.raises(RefusedError, match=f"region is {region}, and leaderElectionName"):
            render(values)
        return
    assert render(values).only("DaemonSet")


def test_releases_that_share_a_namespace_for_their_leases_never_meet_on_a_name() -> None:
    shared = {"leaderElectionNamespace": "leases"}
    releases = [
        render({**shared, "region": "a"}, release="x", namespace="n1"),
        render({**shared, "region": "b"}, release="x", namespace="n2"),
        render({**shared, "region": "c"}, release="x-speil", namespace="n1"),
        render({**shared, "region": "d"}, release="n1-x", namespace="n1"),
    ]
    seen: set[tuple[str, str, str]] = set()
    for objects in releases:
        assert seen.isdisjoint(objects.names())
        seen |= objects.names()


def test_long_names_stay_apart_and_short_enough() -> None:
    regions = [f"{'r' * 50}-{letter}" for letter in "ab"]
    objects = render(
        {"regions": [{"name": one, "leaderElectionNamespace": "leases"} for one in regions]}, release="x" * 53
    )
    names = [one["metadata"]["name"] for kind in ("Service", "DaemonSet") for one in objects.of(kind)]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 63


def test_names_that_look_like_numbers_stay_names() -> None:
    values = {"regions": [{"name": "1", "leaderElectionNamespace": "7"}], "createNamespace": True}
    for one in render(values, release="12", namespace="34").all:
        metadata = one["metadata"]
        texts = [metadata["name"], metadata.get("namespace", ""), *metadata["labels"].values()]
        assert all(isinstance(text, str) for text in texts), one["kind"]


def test_namespaces_are_made_where_that_is_asked_and_kept() -> None:
    objects = render({**TWO, "createNamespace": True})
    assert {one["metadata"]["name"] for one in objects.of("Namespace")} == {"spegel-regiona", "spegel-regionb"}
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in objects.of("Namespace"))
    assert not render({"createNamespace": True}).of("Namespace"), "helm makes the release's own"
    shared = [{"name": name, "leaderElectionNamespace": "leases"} for name in ("a", "b")]
    assert len(render({"regions": shared, "createNamespace": True}).of("Namespace")) == 1


def test_a_mesh_that_is_shared_with_spegel_is_not_fenced() -> None:
    objects = render({"region": "eu", "speil": {"dhtProtocolPrefix": "/spegel"}})
    assert not objects.of("Secret")
    assert not objects.of("NetworkPolicy")


def test_strict_takes_no_node_without_the_label() -> None:
    """Without it a node that names no region is taken, where there is no cluster that shows another region."""
    label = "topology.kubernetes.io/region"
    own = {"key": label, "operator": "In", "values": ["eu"]}
    strict, lenient = (terms_of(pod_of(render({"region": "eu", **more}))) for more in ({"keepToRegion": "strict"}, {}))
    assert strict == [{"matchExpressions": [own]}]
    assert lenient == [*strict, {"matchExpressions": [{"key": label, "operator": "DoesNotExist"}]}]


def test_an_upgrade_without_a_cluster_to_look_at_pulls_no_image_before() -> None:
    assert not [one for one in render({"region": "eu"}, "--is-upgrade").all if "prepull" in one["metadata"]["name"]]


def test_the_notes_say_that_a_node_port_reaches_its_own_node_alone() -> None:
    """The policy turns other nodes away, unless their network is named."""
    words = "reaches the node that is asked and no other"
    values = {"region": "eu", "service": {"registry": {"nodePort": 30021}}}
    assert words in notes(values)
    named = {"networkPolicy": {"registryFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}
    assert words not in notes({**values, **named})
    assert words not in notes({"region": "eu"})
