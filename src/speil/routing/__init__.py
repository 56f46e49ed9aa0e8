"""Routing: which peer holds which content. The Router port (`base`), in memory and as a Kademlia DHT (`dht`)."""
