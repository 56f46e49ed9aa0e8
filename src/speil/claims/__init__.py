"""Who fetches content from the upstream, and who follows whom while it is downloaded. A core.

The node closest to a key keeps the key's claim: which node fetches the content, and which nodes follow which others.
`umpire` is that node's part. It answers questions from one `claim` (the tree of one key) for each key, within `limits`.
`asker` is the part of a node whose containerd asks for content that it does not have. It keeps the course of each pull
in flight (`pull`), and `questions` decides which umpire a pull asks. `states` has the tables of states, `message` what
nodes send each other, and `codec` its bytes.
"""
