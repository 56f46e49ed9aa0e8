"""Looks at regions from outside, for the commands that people run: `leases` and `nodes` are read, `look` joins them.

Works with a kubeconfig (Leases by the API, nodes by the API server's proxy to their pods), and without a cluster on
lease files and metrics URLs.
"""
