"""Who leads the region: client-go's leader election as a core, with a load that does not grow with the region.

`config` has the timings, `record` what stands in the Lease, `pace` how often to ask, `elector` the machine. What
performs its requests is `kube.leader`.
"""
