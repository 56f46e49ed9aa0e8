"""speil on a real Kubernetes: two regions of kubelets on one machine, installed by helm as its documentation says.

`lab` makes the cluster: control plane, registries, nodes, and counters of everything that passes between the regions.
`python -m tests.cluster up` leaves one running, for people (`make cluster-up`).
"""
