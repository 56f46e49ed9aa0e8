"""The election's shell: what reads and writes a Lease, and what drives `election.elector` on it.

`base` is the port to a Lease. Its adapters are `kubernetes`, `file` and `memory`; `testing.lease_conformance` holds for
the three. `driver` performs an elector's requests, `build` makes the port's adapter from the settings.
"""
