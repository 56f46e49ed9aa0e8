"""containerd's registry configuration on this host: applied, backed up and cleaned up atomically."""
