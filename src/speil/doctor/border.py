"""Does the node's door let containerd in, and what does it leave to strangers?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from speil.doctor.facts import RegistryDirectory
from speil.finding import Finding, Level


def refusal_finding(check: str, directory: RegistryDirectory) -> Finding | None:
    """What is wrong with the headers that a hosts.toml gives containerd; None where speil takes them."""
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
    """Findings from `/debug/state`; none of a version that does not tell."""
    if state.get("peers_prove_themselves") is None:
        return
    if state["peers_prove_themselves"]:
        yield Finding("answers", Level.OK, "peers prove themselves: what has no proof is no answer")
    elif state.get("resolve_tags"):
        yield Finding(
            "answers",
            Level.WARN,
            "tags are taken from peers that prove nothing: a stranger who reaches this region's ports can answer a tag "
            "that nobody else holds with an image of its choice",
            "set --region-secret-file (or basic auth), fence the ports by a NetworkPolicy, or set --resolve-tags=false",
        )
    else:
        yield Finding("answers", Level.OK, "peers prove nothing, and no tag is taken from them: digests are checked")
    if state.get("has_secret") and not state.get("node_name"):
        yield Finding(
            "node token",
            Level.WARN,
            "this node's name is not known to speil registry: the node token of any node of the region is taken",
            "set --node-name (NODE_NAME), here and for speil configuration",
        )
