"""Basic auth (RFC 7617) from two files, read again when they change; off while neither is there, as in Spegel.

Between nodes the credentials are never sent: keys are derived from them, and a peer proves with a key that it has the
same credentials.

Files that exist and can't be read do not switch it off: the last credentials stay in force, and where there were none,
no request is let in. containerd is then sent upstream (`failure`), so that no pull fails.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

from speil.local_file import read_file
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.region.secret import PeerKeys, of_credentials

FILE_BYTES_MAX = 64 * 1024  # of a name or a password
SCRYPT_COST = 1 << 14  # 16 MiB for 50 ms, once for each change of the files

log = get_log("mirror")


class BasicAuth:
    """The credentials in `directory`/username and /password; one that is missing is empty."""

    def __init__(self, directory: Path) -> None:
        self._files = (directory / "username", directory / "password")
        self._stamp: tuple[object, ...] | None = None
        self._token: bytes | None = None  # None: off
        self._said = Seldom()
        self.failure = ""  # why no request is let in; empty otherwise
        self._stretched: tuple[bytes, bytes] | None = None  # the credentials, and the key made of them

    @property
    def header(self) -> str:
        """The right Authorization value; empty while auth is off."""
        token = self._read()
        return f"Basic {token.decode()}" if token is not None else ""

    def peer_keys(self, region: str) -> PeerKeys | None:
        """The keys of nodes of `region` that have these credentials; None while auth is off."""
        if (token := self._read()) is None:
            return None
        if self._stretched is None or self._stretched[0] != token:
            # an attacker who overheard a token and tries passwords pays this for each of them
            slow = hashlib.scrypt(token, salt=b"speil peers", n=SCRYPT_COST, r=8, p=1, dklen=32)
            self._stretched = token, slow
        return of_credentials(self._stretched[1], region)

    def allows(self, authorization: str) -> bool:
        """Whether a request's Authorization is right; compared in constant time."""
        wanted = self._read()
        if self.failure:
            return False
        if wanted is None:
            return True
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, wanted) and scheme.lower() == "basic"

    def _read(self) -> bytes | None:
        try:
            stamp = tuple(_look(file) for file in self._files)
            if stamp != self._stamp:
                parts = [_content(file) for file in self._files]
                self._token = base64.b64encode(b":".join(parts)) if any(parts) else None
                self._stamp = stamp
            self.failure = ""
            if self._said.over():
                log.info("the files of basic auth can be read again")
        except OSError as error:
            reason = f"{error.filename or self._files[0]}: {error.strerror}"
            if self._token is None:
                self.failure = reason
            if self._said.due(reason):
                log.warning(
                    "the files of basic auth can't be read",
                    error=reason,
                    meanwhile="the last credentials stay in force" if self._token else "nobody is let in",
                )
        return self._token


def _look(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _content(file: Path) -> bytes:
    try:
        return read_file(file, FILE_BYTES_MAX).data.rstrip(b"\r\n")
    except FileNotFoundError:
        return b""
