"""Routing: which peer holds what. One port (`base`), a memory twin, and Kademlia over libp2p (`dht`)."""
