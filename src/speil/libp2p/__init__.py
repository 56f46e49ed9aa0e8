"""libp2p over TCP on asyncio: multistream-select, Noise, yamux, identify, hosts."""
