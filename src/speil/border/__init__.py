"""The doors of a region's border, as they are opened to others: sockets, handshakes, requests.

`region` decides, this package stands at the doors: `record` counts and tells, `gate` is libp2p's, `http` the
registry port's, `secret_file` reads the secret.
"""
