"""The Kademlia provider DHT of libp2p, decided: keys, routing table, lookup, provider records, messages. A core."""
