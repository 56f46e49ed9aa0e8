"""Moves bodies between sockets, files and pipes on the event loop. It knows sockets and no registry.

`sink` is the client's end of a response. A body comes from a file (`file_body`), from a file that is still written
(`growing_file`) or from a socket (`socket_body`), and passes in the kernel where it may: a `pump` drives `sendfile` or
`splice` (through `pipes`). Otherwise it is copied. All bodies of a node share one `Wire` (`turns`), which gives each of
them short turns; `turnstile` counts the steps that can't be measured. `bursts` saves wake-ups for a fast source.
`progress` ends bodies that their client does not take. `connection_pool` keeps idle connections.
"""
