"""Which peer to ask, when to ask another, and what next when one breaks off. A core.

`transfer` is one request's course, `peer_health` what is remembered of each peer between requests.
"""
