"""Which peer to ask, and what next when it fails. A core."""
