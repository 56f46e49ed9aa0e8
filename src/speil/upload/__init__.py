"""To which peers this node sends bodies, and how fast: a core.

`admission` decides whether one more body may be sent to a peer, `pace` when its next piece may be sent.
"""
