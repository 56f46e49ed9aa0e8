"""The Kubernetes API as far as speil needs it, and the election on a Lease.

`api` speaks to the server with the access that `in_cluster` or `kubeconfig` give, `lease` has the port to a Lease and
its adapters, `leader` drives `election.elector` on one.
"""
