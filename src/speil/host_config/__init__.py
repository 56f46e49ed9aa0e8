"""containerd's registry configuration on this host: built beside the old one, switched in one step, restored.

`tree` decides what the new directory holds, `switch` puts it in place.
"""
