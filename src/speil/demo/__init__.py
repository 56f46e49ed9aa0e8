"""`speil demo`: two regions on this machine; in each the upstream is asked once for each blob, and no byte crosses.

Every part is the real one: each node is a `speil registry` process with a store of its own; each region elects its
leader through a Lease (a file here) and finds what its nodes hold through a DHT of its own; the images are made from
files of this machine; the client asks as containerd does. The nodes listen on loopback addresses of their own
(127.31.1.1, 127.31.1.2, …; the second region on 127.31.2.1, …), so that all use the same ports, as nodes do.
"""

from speil.demo.main import DemoSettings, run

__all__ = ["DemoSettings", "run"]
