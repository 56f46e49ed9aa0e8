"""`speil region plan`: makes values for the chart from the names of regions, and checks the names."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import yaml

from speil.cli.app import CommandError
from speil.cli.running import run_async
from speil.config import ConfigError
from speil.finding import Level
from speil.kube.error import KubeError
from speil.overview.plan import PlannedRegion, check, plan
from speil.region.identity import REGION_LABEL
from speil.region.label import RegionError
from speil.region.naming import LEASE_NAME_BASE, LEASE_NAMESPACE_BASE
from speil.setting import boolean, one_of, setting, text
from speil.survey.error import survey_error
from speil.survey.look import ClusterSettings, regions
from speil.survey.table import align

_HEAD = {
    "values": "# One release for all regions: helm upgrade --install speil charts/speil -f values.yaml\n",
    "releases": "# A release a region: helm upgrade --install speil-<region> charts/speil -f values-<region>.yaml\n",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    cluster: ClusterSettings
    regions: tuple[str, ...] = setting(regions, (), also=("--region",), help="The regions' names.")
    from_nodes: bool = setting(boolean, False, help=f"Take them from the label {REGION_LABEL} of the cluster's nodes.")
    leader_election_name_base: str = setting(text, LEASE_NAME_BASE, help="What the names of the Leases begin with.")
    leader_election_namespace_base: str = setting(
        text, LEASE_NAMESPACE_BASE, help="What the names of their namespaces begin with."
    )
    output: str = setting(
        one_of("values", "releases", "wide", "json"),
        "values",
        also=("-o",),
        help="Values for one release, for one release for each region, a table (wide), or JSON.",
    )


def run(settings: Settings) -> int:
    """Plan, check, print. Findings go to stderr, so that stdout is a values file for helm."""
    counted = run_async(_count_nodes(settings)) if settings.from_nodes else Counter()
    names = settings.regions or sorted(name for name in counted if name)
    try:
        planned = plan(names, settings.leader_election_name_base, settings.leader_election_namespace_base)
        found = list(check(planned))
    except RegionError as error:
        raise ConfigError(str(error)) from error
    if settings.from_nodes:
        planned = [replace(one, nodes=counted[one.region]) for one in planned]
    for finding in found:
        if finding.level is not Level.OK:
            print(f"{finding.level} {finding.message}: {finding.remedy}", file=sys.stderr)
    if counted[""]:
        print(f"warn {counted['']} nodes have no label {REGION_LABEL}: no region covers them", file=sys.stderr)
    if any(finding.level is Level.FAIL for finding in found):
        return 1  # and no values: they must not be installed
    print(_text(planned, settings.output), end="")
    return 0


async def _count_nodes(settings: Settings) -> Counter[str]:
    """The number of nodes by region label, "" for those without. Raises CommandError."""
    async with settings.cluster.api() as api:
        try:
            answer = await api.request("GET", "/api/v1/nodes")
        except KubeError as error:
            raise CommandError(f"the cluster's nodes can't be listed: {survey_error(error)}") from error
    labels = [node["metadata"].get("labels") or {} for node in answer.document.get("items") or ()]
    return Counter(str(one.get(REGION_LABEL, "")) for one in labels)


def _text(planned: list[PlannedRegion], output: str) -> str:
    if output == "json":
        return json.dumps([_document(one) for one in planned], indent=1) + "\n"
    if output == "wide":
        rows = [(one.region, one.lease.namespace, one.lease.name, _count(one)) for one in planned]
        return align([("region", "namespace of the Lease", "Lease", "nodes"), *rows]) + "\n"
    if output == "releases":
        return _HEAD[output] + "".join(
            f"---\n# region {one.region}{_nodes(one)}\n{_yaml(_release(one))}" for one in planned
        )
    regions = [{"name": one.region, **_names(one)} for one in planned]
    heads = "".join(f"# region {one.region}{_nodes(one)}\n" for one in planned)
    return _HEAD[output] + heads + _yaml({"bootstrapKind": "kubernetes", "regions": regions})


def _count(one: PlannedRegion) -> str:
    return "-" if one.nodes is None else str(one.nodes)


def _names(one: PlannedRegion) -> dict[str, str]:
    return {"leaderElectionName": one.lease.name, "leaderElectionNamespace": one.lease.namespace}


def _release(one: PlannedRegion) -> dict[str, Any]:
    return {"bootstrapKind": "kubernetes", **_names(one), "nodeSelector": {REGION_LABEL: one.region}}


def _document(one: PlannedRegion) -> dict[str, Any]:
    return {"region": one.region, **_names(one), "nodes": one.nodes}


def _nodes(one: PlannedRegion) -> str:
    return "" if one.nodes is None else f": {one.nodes} nodes"


def _yaml(document: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text
