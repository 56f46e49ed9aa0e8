"""Which peer to ask, when to ask another, and what next when one breaks off. A core.

`transfer` is one request's course; it leans on `candidates` (in which order) and `resume` (is this answer what we
want, and does it go on where we are). What outlives a request: `peer_health` and `hedge` (how peers answered),
`trust` (who sent right and wrong bytes), `known_sizes` (what manifests said). `pace` judges a body on its way,
`budget` bounds what is held in memory.
"""
