"""The registry this node shows to containerd and to peers."""
