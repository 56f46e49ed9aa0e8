"""Turns the gathered facts into findings, with a remedy where something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speil.doctor.border import border_findings, refusal_finding
from speil.doctor.facts import Facts, RegistryDirectory
from speil.doctor.region import region_findings
from speil.finding import Finding, Level
from speil.hosts_toml.document import DEFAULT_DIRECTORY


def findings(facts: Facts) -> list[Finding]:
    """All findings, in the order in which a pull meets what they check."""
    return [
        *_containerd(facts),
        *_config_path(facts),
        *_layers(facts),
        *_hosts(facts),
        *_mirror(facts),
        *_mesh(facts),
    ]


def _containerd(facts: Facts) -> Iterator[Finding]:
    if facts.containerd is None:
        yield Finding(
            "containerd",
            Level.FAIL,
            f"{facts.socket} does not answer: {facts.containerd_error}",
            "start containerd, or set --containerd-sock; only root may use the socket",
        )
    else:
        yield Finding("containerd", Level.OK, f"version {facts.containerd.version} at {facts.socket}")


def _config_path(facts: Facts) -> Iterator[Finding]:
    if facts.containerd is None:
        return
    configured, wanted = facts.containerd.registry_config_path, str(facts.config_path)
    old = facts.containerd.major < 2
    table = (
        '[plugins."io.containerd.grpc.v1.cri".registry]' if old else "[plugins.'io.containerd.cri.v1.images'.registry]"
    )
    remedy = f'set config_path = "{wanted}" under {table} in containerd\'s config.toml and restart containerd'
    source = facts.containerd.source
    if configured is None and _is_hidden(facts):
        yield _by_requests(
            facts,
            "config_path",
            f"containerd does not report it, and not all of {facts.config_file} is mounted in this pod",
        )
    elif configured is None:
        yield Finding(
            "config_path",
            Level.WARN if old else Level.FAIL,
            "no registry config_path is known to be set: "
            + ("1.x then reads no hosts.toml" if old else "2.x then ignores every hosts.toml for the kubelet's pulls"),
            remedy,
        )
    elif ":" in configured:
        yield Finding(
            "config_path",
            Level.WARN if old else Level.FAIL,
            f"config_path is a list, {configured} ({source}): 2.x reads it as one directory's name and finds nothing",
            remedy,
        )
    elif configured.rstrip("/") != wanted.rstrip("/"):
        yield Finding(
            "config_path",
            Level.FAIL,
            f"containerd reads {configured or 'nothing'} ({source}), speil doctor looked in {wanted}",
            f"{remedy}, or run speil with --containerd-registry-config-path {configured}",
        )
    else:
        yield Finding("config_path", Level.OK, f"{configured} ({source})")
    yield from _drop_ins(facts)


def _is_hidden(facts: Facts) -> bool:
    """Whether containerd's configuration, or a file that it imports, may exist on the node unseen by this pod."""
    imported = [Path(one) for one in facts.config_imports]
    return facts.is_in_pod and (
        not facts.config_exists or any(one.is_absolute() and not one.parent.is_dir() for one in imported)
    )


def _by_requests(facts: Facts, check: str, unseen: str) -> Finding:
    """For what a pod can't see: whether requests of this node's containerd arrive shows that it works."""
    if facts.requests:
        return Finding(check, Level.OK, f"{unseen}; containerd's requests arrive here, so it reads hosts.toml")
    return Finding(
        check,
        Level.WARN,
        f"{unseen}; no request of containerd has arrived here yet",
        "pull an image with --image, or run speil doctor on the node",
    )


def _drop_ins(facts: Facts) -> Iterator[Finding]:
    if facts.drop_ins and not facts.config_imports and facts.config_exists:
        names = ", ".join(path.name for path in facts.drop_ins)
        yield Finding(
            "drop-ins",
            Level.WARN,
            f"{facts.config_file} has no imports line, so {names} in conf.d is not read",
            f'add imports = ["{facts.drop_ins[0].parent}/*.toml"] to {facts.config_file}',
        )


def _layers(facts: Facts) -> Iterator[Finding]:
    if facts.containerd is None:
        return
    match facts.containerd.discard_unpacked_layers:
        case True:
            yield Finding(
                "layers",
                Level.FAIL,
                "discard_unpacked_layers is on: this node keeps no layers and can share manifests only",
                "set discard_unpacked_layers = false and restart containerd; layers are kept from the next pulls on",
            )
        case False:
            yield Finding("layers", Level.OK, "containerd keeps unpacked layers")
        case None:
            yield Finding("layers", Level.OK, "containerd keeps unpacked layers (its default, which nothing changes)")


def _hosts(facts: Facts) -> Iterator[Finding]:
    if facts.is_in_pod and not facts.config_path_exists:
        yield _by_requests(facts, "hosts.toml", f"{facts.config_path} is not mounted in this pod")
    elif not facts.directories:
        yield Finding(
            "hosts.toml",
            Level.FAIL,
            f"there is no hosts.toml below {facts.config_path}",
            "run speil configuration --mirror-targets http://127.0.0.1:5000 (where this node's speil listens)",
        )
    for directory in facts.directories:
        yield _judge_directory(directory, facts)


def _judge_directory(directory: RegistryDirectory, facts: Facts) -> Finding:
    check = f"hosts.toml of {'all other registries' if directory.name == DEFAULT_DIRECTORY else directory.name}"
    if directory.judgement is None:
        return Finding(check, Level.WARN, "the directory has no hosts.toml: this registry is not mirrored", "")
    if directory.judgement.problems:
        return Finding(check, Level.FAIL, "; ".join(directory.judgement.problems), f"correct {directory.file}")
    ours = [host for host in directory.judgement.hosts if facts.is_ours(host)]
    if not ours:
        names = ", ".join(directory.judgement.hosts)
        return Finding(check, Level.WARN, f"speil is not among its hosts ({names})", "run speil configuration")
    if directory.judgement.hosts[0] not in ours:
        return Finding(check, Level.WARN, f"{directory.judgement.hosts[0]} is asked before speil", "")
    if refused := refusal_finding(check, directory):
        return refused
    return Finding(check, Level.OK, f"speil is asked first, at {ours[0]}")


def _mirror(facts: Facts) -> Iterator[Finding]:
    for url, status in facts.mirrors.items():
        if status is None and facts.is_in_pod and facts.registry == 200:
            yield Finding(
                "mirror",
                Level.OK if facts.requests else Level.WARN,
                f"speil answers in this pod; {url}, which containerd uses, can't be reached from here"
                + ("; containerd's requests arrive" if facts.requests else ""),
                "" if facts.requests else f"run curl {url}/livez on the node; a network policy may be the reason",
            )
        elif status is None:
            yield Finding(
                "mirror",
                Level.FAIL,
                f"nothing answers at {url}: containerd goes upstream",
                "start speil registry on this node, or correct --mirror-targets of speil configuration",
            )
        elif status != 200:
            yield Finding(
                "mirror",
                Level.FAIL,
                f"{url}/livez answers {status}: is it speil that listens there?",
                "find out what uses the port (ss -ltnp), or check basic auth",
            )
        else:
            yield Finding("mirror", Level.OK, f"answers at {url}")


def _mesh(facts: Facts) -> Iterator[Finding]:
    if facts.state is None:
        yield Finding(
            "state",
            Level.WARN,
            f"the metrics port does not answer at {facts.metrics_url}",
            "set --metrics-addr; without it peers can't be checked",
        )
        return
    if not facts.state.get("ready"):
        yield Finding(
            "ready",
            Level.FAIL,
            "the node is not ready: it has found no peers yet",
            "see lines with component=bootstrap in its log",
        )
    if not facts.state.get("store_available"):
        yield Finding(
            "store", Level.FAIL, "speil can't reach its content store", "see lines with component=containerd in its log"
        )
    yield from region_findings(facts.state)
    yield from border_findings(facts.state)
    count = len(facts.state.get("peers", []))
    if count:
        yield Finding("peers", Level.OK, f"{count} in the routing table")
    else:
        yield Finding(
            "peers",
            Level.WARN,
            "no peers: every image this node lacks comes from upstream",
            "check --bootstrap-kind, and whether nodes reach each other's router port",
        )
