"""The content of a containerd: images and events over its socket, blobs from its disk."""
