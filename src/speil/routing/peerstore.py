"""Peers known from before, kept in the data directory: a restart finds its mesh without asking anybody.

`peers.json`: a list of multiaddrs with peer ids, most recent first, bounded, written atomically. It is a help and
never a must: a file that is missing or damaged is an empty list and one line in the log.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log

FILE_NAME = "peers.json"
PEERS_MAX = 50  # a few that are still there are enough
_FILE_BYTES_MAX = 64 * 1024

log = get_log("peerstore")


class Peerstore:
    """The list in `data_dir`; without a directory nothing is kept."""

    def __init__(self, data_dir: Path | None) -> None:
        self._path = data_dir / FILE_NAME if data_dir else None

    def load(self) -> list[Multiaddr]:
        """Addresses with peer ids, most recent first."""
        if self._path is None:
            return []
        try:
            items = json.loads(_read(self._path))
            return [Multiaddr.parse(str(item)) for item in items[:PEERS_MAX]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, FormatError, RecursionError) as error:
            log.warning("the list of known peers can't be read: starting without", path=self._path, error=error)
            return []

    def save(self, peers: Iterable[PeerInfo]) -> None:
        """Keep `peers` (one address each) in place of what was there."""
        if self._path is None:
            return
        items = [str(peer.addresses[0].with_peer_id(peer.peer_id)) for peer in peers if peer.addresses][:PEERS_MAX]
        temporary = self._path.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(items, indent=1))
            temporary.rename(self._path)
        except OSError as error:
            log.warning("the list of known peers can't be written", path=self._path, error=error)


def _read(path: Path) -> bytes:
    """The file's first bytes; a pipe or a device, from which reading may never end, is an OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a regular file")
        return file.read(_FILE_BYTES_MAX)
