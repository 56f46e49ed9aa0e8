"""Which node leads the region: client-go's leader election, with a load that does not grow with the region. A core.

`config` has the timings, `record` what stands in the Lease, `ownership` whose Lease it is. `elector` is the machine:
`state` has its states and transitions, `watch` what it saw of the Lease, `polling` when it looks again, `proposal` what
it writes, `action` what it asks for. `lease.driver` performs its requests.
"""
