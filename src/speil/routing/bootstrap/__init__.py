"""Where the first peers come from: one port (`base`), one module for each kind, one driver.

What a kind does so that others find this node is in its `run`: `http` serves its id, a Lease needs an election.
"""
