"""A Lease: the port (`base`) and its adapters in memory, in a file and in Kubernetes.

`testing.lease_conformance` holds for the three.
"""
