"""HTTP/1.1 on h11, for both ends: the guarded server of speil's own ports, and a client for the few servers it asks."""
