"""`speil demo`: several nodes on this machine pull one image, and the upstream is asked once for each blob.

Every part is the real one: each node is a `speil registry` process with a store of its own, found by the others
through the DHT; the image is made from files of this machine; the client asks as containerd does. The nodes listen on
loopback addresses of their own (127.31.0.1, 127.31.0.2, …), so that all use the same ports, as nodes of a cluster do.
"""

from speil.demo.main import DemoSettings, run

__all__ = ["DemoSettings", "run"]
