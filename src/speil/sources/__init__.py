"""Where the bytes of content come from, behind one port (`base.Source`).

`own_store` is this node's store, `peers` are the other nodes of the region, `tags` answer a tag with its manifest.

Peers: `peer_fetch` is one request, with a `peer_race` of peers (it drives `fetch.transfer`); a response is read whole
and verified (`verify`), or passed on as it arrives (`relayed`). `peer_client` speaks HTTP/1.1 to one peer (`peer_head`
parses the response's head), `peer_access` chooses its address. `peer_knowledge` is what the node knows of peers between
requests; `settle` learns from the store which delivered content was right.
"""
