"""Self-describing formats of libp2p: varint, base58, peer id, multiaddr. A core: bytes and text, nothing else."""
