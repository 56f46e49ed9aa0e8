"""Content stores: where this node's images are. One port (`base`), three adapters, one conformance suite."""
