"""The lab: nodes in network namespaces, each with a containerd and a speil, and a registry that counts.

Everything has a name with this process's id in it, ends by its own process id, and is removed at the end.
"""
