"""Parses, renders, merges and checks hosts.toml, containerd's "registry host namespace" configuration. A core package.

speil writes only what every containerd from 1.6 on accepts. containerd 2.x drops a mirror silently for an unknown
capability, an invalid timeout or an empty file. containerd 1.6 rejects a file without a host.
"""
