"""The region's border at sockets, handshakes and requests.

`region` has the rules, this package applies them: `gate` to libp2p connections, `http` to requests at the registry
port. `record` counts and logs what was refused, `secret_file` reads the region's secret.
"""
