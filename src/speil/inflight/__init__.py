"""Sharing a download while it is under way: carries out what `claims` decides, on one node.

`pulls` owns the node's `Asker`: it asks umpires and sources, and keeps the time. `downloads` reports to it what the
runtime downloads. `others` is the source of this node's containerd for what its own store lacks: peers that have it, or
`following`, which holds the request (`held`) while another node downloads it. `slots` ends requests that are in the way
of others. `delivery` reads from the sources that the asker names (`leg`), verifies small content (`buffer`) and passes
on the rest at exactly the bytes that were promised (`promise`). `serving` is the other side: followers of this node's
downloads, and their bound. `transfers` lists what is under way.
"""
