"""The directory that containerd reads, before and after: what `configuration` and `cleanup` make of it.

The first run keeps what it found in `_backup`; later runs start from there again, so that running twice, or with other
settings, gives what running once would have given. `cleanup` brings the backup back.
"""

from __future__ import annotations

from pathlib import Path

from speil.host_config.switch import copy, entries, replace
from speil.hosts_toml.document import HostsTomlError, Mirrors, directory_of, render

BACKUP = "_backup"
HOSTS_FILE = "hosts.toml"


class HostConfigError(Exception):
    """The directory can't be configured; nothing was changed. The message names the file and what to do."""


def configure(
    directory: Path, registries: tuple[str, ...], mirrors: Mirrors, *, prepend_existing: bool, in_place: bool = False
) -> list[str]:
    """Write hosts.toml files for `registries` (URLs; none means all) and back up what was there; what was written.

    With `prepend_existing` our mirrors stand in front of the hosts that were configured, and certificates beside them
    stay. Registries that are not named keep what they had; with none named all directories give way to `_default`.
    Raises HostConfigError.
    """
    try:
        before = directory / BACKUP if (directory / BACKUP).is_dir() else directory
        texts = {directory_of(url): _text(before, url, mirrors, prepend_existing) for url in registries or ("",)}

        def build(staging: Path) -> None:
            (staging / BACKUP).mkdir()
            for entry in _kept(before):
                copy(entry, staging / BACKUP / entry.name)
                if registries and entry.name not in texts:
                    copy(entry, staging / entry.name)
            for name, text in texts.items():
                if prepend_existing and (before / name).is_dir():
                    copy(before / name, staging / name)
                (staging / name).mkdir(exist_ok=True)
                _write(staging / name / HOSTS_FILE, text, for_root_alone=bool(mirrors.headers))

        replace(directory, build, in_place=in_place)
    except HostsTomlError as error:
        raise HostConfigError(str(error)) from error
    except OSError as error:
        raise HostConfigError(f"{error.filename or directory}: {error.strerror}") from error
    return sorted(texts)


def restore(directory: Path, *, in_place: bool = False) -> bool:
    """Bring back what `configure` found; False where there is no backup. Raises HostConfigError."""
    backup = directory / BACKUP
    if not backup.is_dir():
        return False

    def build(staging: Path) -> None:
        for entry in _kept(backup):
            copy(entry, staging / entry.name)

    try:
        replace(directory, build, in_place=in_place)
    except OSError as error:
        raise HostConfigError(f"{error.filename or directory}: {error.strerror}") from error
    return True


def _text(before: Path, url: str, mirrors: Mirrors, prepend_existing: bool) -> str:
    file = before / directory_of(url) / HOSTS_FILE
    existing = file.read_text() if prepend_existing and file.is_file() else ""
    try:
        return render(url, mirrors, existing)
    except HostsTomlError as error:
        raise HostsTomlError(f"{file} is {error}; mend or remove it") from error


def _write(file: Path, text: str, *, for_root_alone: bool) -> None:
    """With credentials in it (a token, basic auth) a file is for containerd alone, which runs as root."""
    file.unlink(missing_ok=True)  # a copy of what was there has that one's mode
    file.touch(0o600)
    file.write_text(text)
    if not for_root_alone:
        file.chmod(0o644)


def _kept(directory: Path) -> list[Path]:
    """The entries of a directory that are configuration."""
    return [entry for entry in entries(directory) if entry.name != BACKUP]
