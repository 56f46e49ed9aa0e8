"""Where the first peers come from: one port (`base`), a kind a module, one driver.

A kind that has to do something for others to find this node (`http` serves its id; a Lease campaigns) does it in
`run`.
"""
