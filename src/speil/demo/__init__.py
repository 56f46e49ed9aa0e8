"""`speil demo`: two regions on this machine. Each region pulls each blob from upstream once, and no byte crosses.

Every part is real. Each node is a `speil registry` process with its own store. Each region elects its leader through a
Lease, which is a file here, and finds content through its own DHT. The images are made from files of this machine. The
client sends the same requests as containerd. Each node listens on its own loopback address (127.31.1.1, 127.31.1.2, …;
the second region 127.31.2.1, …), so that all can use the same ports, as real nodes do.
"""

from speil.demo.main import DemoSettings, run

__all__ = ["DemoSettings", "run"]
