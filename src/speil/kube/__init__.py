"""The Kubernetes API, as far as speil needs it.

`api` sends requests with an `access`, which `in_cluster` or `kubeconfig` provide. `node_labels` reads this node's
labels, `node_region` decides from them which region the node is in.
"""
