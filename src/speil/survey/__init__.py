"""Reads the Leases and nodes of all regions for `speil region`: `leases` and `nodes`, joined by `look`.

In a cluster it reads Leases from the API and nodes through the API server's proxy to their pods. Without a cluster it
reads lease files and metrics URLs.
"""
