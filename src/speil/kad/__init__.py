"""The Kademlia provider DHT of libp2p (libp2p spec "kad-dht"), decided here and driven by `routing.dht`. A core.

keys and distances (`key`), whom we know (`routing_table`, `known_peers`), whom to ask next (`lookup`, `answer_trust`),
who has what (`provider_records`), what to announce when (`provide_schedule`), and the bytes on the wire (`message`).
What peers may cost is told by where they come from (`network_group`): places, records (`shares`), time (`cost_budget`).
"""
