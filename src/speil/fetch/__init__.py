"""Which peer to ask, when to ask another, and what to do when one breaks off. A core.

`transfer` decides the steps of one request, with `candidates` (the order of peers) and `resume` (is a response the
content that was asked for, and does it continue at the right offset). What is kept between requests: `peer_health` and
`hedge` (how peers answered), `trust` (which peers sent right and wrong bytes), `known_sizes` (the sizes that manifests
state). `pace` judges the speed of a body, `budget` bounds the bytes held in memory. Tags: `tag_poll` (which holders to
ask), `tag_answers` (what follows from their answers), `tag_promises` (tags that could not be supplied).
"""
