"""containerd's hosts.toml as a document: parse, render, overlay. A core."""
