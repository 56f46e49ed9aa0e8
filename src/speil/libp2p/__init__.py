"""libp2p over TCP on asyncio: multistream-select, Noise, yamux, identify, ping, and the host."""
