"""The Kademlia provider DHT of libp2p (libp2p spec "kad-dht"), decided here and driven by `routing.dht`. A core.

keys and distances (`key`), whom we know (`routing_table`), whom to ask next (`lookup`), who has what
(`provider_records`), what to announce when (`provide_schedule`), and the bytes on the wire (`message`).
"""
