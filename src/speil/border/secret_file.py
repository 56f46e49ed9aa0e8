"""The region's secret in a file, read again when it changes: a rotation needs no restart.

A file that becomes invalid while the node runs (half-written, or an emptied Secret) is logged, and the last valid
secret stays in force.
"""

from __future__ import annotations

from pathlib import Path

from speil.observe.logs import get_log
from speil.region.secret import RegionSecret, SecretError, parse

_BYTES_MAX = 64 * 1024

log = get_log("border")


class SecretFile:
    """The secret of `region` in `path`. Raises SecretError where the file is not valid at the start."""

    def __init__(self, path: Path, region: str) -> None:
        self._path, self._region = path, region
        self._stamp: tuple[int, ...] = ()
        self._failure = ""
        self._secret = self._read()

    @property
    def secret(self) -> RegionSecret:
        """The keys in force now. Looks at the file each time."""
        try:
            if self._look() != self._stamp:
                self._secret = self._read()
                log.info("region secret reloaded", file=self._path, lines=len(self._secret.peer_keys))
            self._failure = ""
        except (SecretError, OSError) as error:
            if str(error) != self._failure:
                self._failure = str(error)
                log.error("region secret can't be read, keeping the last one", file=self._path, error=error)
        return self._secret

    def _look(self) -> tuple[int, ...]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> RegionSecret:
        try:
            stamp = self._look()
            with self._path.open("rb") as file:
                text = file.read(_BYTES_MAX).decode()
            secret = parse(text, self._region)
        except OSError as error:
            raise SecretError(f"{self._path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SecretError(f"{self._path} is not text") from error
        except SecretError as error:
            raise SecretError(f"{self._path}: {error}") from error
        self._stamp = stamp
        return secret
