"""Regions as operators see them, all at once: planned, looked at, judged. A core.

`view` holds what was read of Leases and nodes, `verify` and `verify_identity` judge it, `plan` names regions that do
not exist yet. `survey` does the reading.
"""
