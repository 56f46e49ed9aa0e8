"""The door: the registry port that containerd and peers ask, and the metrics port.

A request goes through once, from top to bottom: `server` (routes, probes, the region's border), `registry` (basic auth,
what is asked for, how many at once), `resolve` (which source has it), `plan` (status and headers), `send` (the only
place that sends). `record` is the one record of the request, for the log, the metrics and the debug page. The bytes
come from `speil.sources` and go through `speil.wire`.
"""
