"""The containerd adapter: images and events over its socket, blobs from its disk."""
