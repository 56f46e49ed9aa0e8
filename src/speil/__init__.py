"""speil: a stateless, peer-to-peer, cluster-local OCI registry mirror for Kubernetes.

A package is a core or a shell. A core decides: it does no IO, reads no clock, throws no dice and logs nothing. A shell
holds sockets and files and carries the decisions out. Imports go downwards only, and never in a circle: import-linter
checks the layers (`pyproject.toml`), a test the circles and this map. docs/architecture.md follows one pull through the
packages.

Vocabulary, which every package may import:

    version         the version of speil
    oci             digests, references, manifests, platforms, byte ranges, the registry API's paths
    multiformats    peer ids, multiaddrs, content keys
    setting         how settings are declared and parsed
    finding         the result of one check: good or bad, what to do
    local_file      reads files that others may have written
    heap            gives free memory back to the system
    token_bucket    so much at once, so much a second after that
    interface_addresses  the IP addresses of this machine's interfaces
    tcp             opens TCP connections
    progress        shows people how far long work is: a bar on a terminal, lines in a pipe

Cores:

    kad             Kademlia: keys, routing table, lookups, provider records, messages
    election        which node leads the region: states, timings, the record in the Lease
    hosts_toml      parses and writes containerd's hosts.toml, and judges how containerd reads it
    region          which region a node is in, who belongs to it, secrets, tokens, proofs
    fetch           which peer to ask, when to ask the next one, what to do after a break, whom to trust
    upload          which peers are served, how fast, which are sent elsewhere
    claims          who fetches content from the upstream, and who follows whom while it is downloaded
    trace           from where a node would take each part of an image
    overview        all regions as an operator sees them: plan, view, verify

Shells:

    observe         logs and metrics
    http1           HTTP/1.1 on h11: the server of speil's ports, a client for the API server and others
    kube            the Kubernetes API: access, requests, node labels
    store           the content on this node: containerd, an OCI layout, memory
    libp2p          connections between peers: Noise, yamux, identify
    host_config     writes the hosts.toml trees
    border          keeps other regions out of libp2p and the registry port
    wire            moves bodies between sockets, files and pipes; knows no registry
    lease           reads and writes the region's Lease (Kubernetes, file, memory), drives the election
    routing         finds and announces providers: the DHT, bootstrap kinds
    sources         opens content: from this node's store, from peers; answers tags
    inflight        shares content while it is downloaded: follows other nodes, serves followers
    mirror          the registry port and the metrics port: lets requests in, answers them
    web             the node's pages: event streams, traces
    config          settings from flags, environment and defaults
    daemon          `speil registry`: puts a node together and runs it
    survey          reads Leases and nodes of all regions, for `speil region`
    region_web      `speil region web`
    doctor          `speil doctor`
    demo            `speil demo`
    cli             the commands
    testing         the test kit: in-memory network, virtual time, conformance suites; no other package imports it
"""
