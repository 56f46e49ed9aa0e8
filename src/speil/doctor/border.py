"""Checks whether the registry port accepts this node's containerd, and what it leaves open to strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from speil.doctor.facts import RegistryDirectory
from speil.finding import Finding, Level


def refusal_finding(check: str, directory: RegistryDirectory) -> Finding | None:
    """A finding if speil refuses the headers that a hosts.toml makes containerd send; None if it accepts them."""
    for host, status in directory.answers.items():
        if status == 401:
            return Finding(
                check,
                Level.FAIL,
                f"{host} refuses the credentials in {directory.file}: this node's containerd goes upstream",
                "run speil configuration again, with the same --basic-auth-dir as speil registry",
            )
        if status == 404:
            return Finding(
                check,
                Level.FAIL,
                f"{host} refuses the node token in {directory.file} (none, another node's, an old one, or of another "
                "secret): this node's containerd goes upstream",
                "run speil configuration again, with the same --region, --region-secret-file and --node-name as speil "
                "registry; lines `kept out … layer=node_token` in its log say why",
            )
    return None


def border_findings(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings from `/debug/state`; none where the node's version does not report this."""
    if state.get("peers_prove_themselves") is None:
        return
    if state["peers_prove_themselves"]:
        yield Finding("answers", Level.OK, "peers prove themselves: a response without a proof is ignored")
    elif state.get("resolve_tags"):
        yield Finding(
            "answers",
            Level.WARN,
            "peers answer tags without proof: a stranger who reaches this region's ports can answer a tag that nobody "
            "else holds with an image of its choice",
            "set --region-secret-file (or basic auth), restrict the ports by a NetworkPolicy, or set "
            "--resolve-tags=false",
        )
    else:
        yield Finding(
            "answers", Level.OK, "peers prove nothing, but no tag is resolved by them, and digests are verified"
        )
    if state.get("has_secret") and not state.get("node_name"):
        yield Finding(
            "node token",
            Level.WARN,
            "this node's name is not known to speil registry: the node token of any node of the region is accepted",
            "set --node-name (NODE_NAME), here and for speil configuration",
        )
