"""Which region a node is in, and what the things of a region are called. A core."""
