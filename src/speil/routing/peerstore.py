"""Peers known before a restart, stored in the data directory: a node finds its mesh again without its bootstrap.

`peers.json` is a list of multiaddrs with peer ids, most recent first, limited in length and written atomically. It is
optional: a file that is missing or damaged is read as an empty list, with one log line.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from speil.local_file import parse_json, read_file
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom

FILE_NAME = "peers.json"
PEERS_MAX = 50  # a few that still exist are enough
_FILE_BYTES_MAX = 64 * 1024

log = get_log("peerstore")


class Peerstore:
    """The list in `data_dir`; without a directory nothing is stored."""

    def __init__(self, data_dir: Path | None) -> None:
        self._path = data_dir / FILE_NAME if data_dir else None
        self._failure = Seldom(again_seconds=600)

    def load(self) -> list[Multiaddr]:
        """Addresses with peer ids, most recent first."""
        if self._path is None:
            return []
        try:
            items = parse_json(read_file(self._path, _FILE_BYTES_MAX).data)
            if not isinstance(items, list):
                raise ValueError("it is not a list")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning("list of known peers can't be read, starting without it", path=self._path, error=reason)
            return []
        found, damaged = [], 0
        for item in items[:PEERS_MAX]:
            try:
                found.append(Multiaddr.parse(item if isinstance(item, str) else ""))
            except FormatError:
                damaged += 1
        if damaged:
            log.warning("list of known peers has bad entries, skipping them", path=self._path, count=damaged)
        return found

    def save(self, peers: Iterable[PeerInfo]) -> None:
        """Replace the list by `peers`, one address each. A failure is logged, not raised."""
        if self._path is None:
            return
        items = [str(peer.addresses[0].with_peer_id(peer.peer_id)) for peer in peers if peer.addresses][:PEERS_MAX]
        try:
            _write(self._path, json.dumps(items, indent=1))
            self._failure.over()
        except OSError as error:
            if self._failure.due(str(error.errno)):
                log.warning("list of known peers can't be written", path=self._path, error=error.strerror)


def _write(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=path.parent)
    try:
        with open(descriptor, "w") as file:
            file.write(text)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
