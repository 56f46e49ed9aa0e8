"""The Kademlia provider DHT of libp2p (libp2p spec "kad-dht"): its decisions, carried out by `routing.dht`. A core.

Keys and distances (`key`), known peers (`routing_table`, `known_peers`), the peers to ask next (`lookup`,
`answer_trust`), providers (`provider_records`), what to announce when (`provide_schedule`, `coverage`), and the bytes
on the wire (`message`). Limits for peers are counted by the network that they come from (`network_group`): places in
the table, records (`shares`), time (`cost_budget`).
"""
