"""speil: a stateless, peer-to-peer, cluster-local OCI registry mirror for Kubernetes.

The packages stand in layers (`pyproject.toml`, import-linter). Cores decide and touch nothing:

    oci, multiformats, setting      the vocabulary: digests, references, peer ids, settings
    kad, fetch, hosts_toml          the decisions: whom to ask, in which order, what to write

Shells hold the sockets and files and carry the decisions out:

    observe                         logs, metrics, health
    store, libp2p, host_config      content on disk, peers on the wire, containerd's hosts.toml
    routing, mirror                 who has it; serve it
    config, daemon, cli             put together

One pull, step by step: `mirror.handlers`.
"""
