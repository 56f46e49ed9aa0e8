"""Whom this node sends bodies to, and how fast: a core.

`admission` says whether another body may be sent to a peer, `pace` when the next piece of one may go.
"""
