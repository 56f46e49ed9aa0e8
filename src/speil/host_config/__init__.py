"""Writes and restores containerd's registry configuration (the hosts.toml directory) of this node.

`tree` has the three operations: configure, preview and restore. `plan` computes the new directory, `proof` checks it,
`switch` puts it in place in one step.
"""
