"""Which region a node is in, who belongs to it, and what proves it. A core.

`identity` decides the region from settings, names (`naming`) and labels (`label`). `policy` is the rule that libp2p and
HTTP apply to peers. `secret`, `token`, `node_token` and `proof` authenticate requests and responses.
"""
