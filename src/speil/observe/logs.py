"""Logs: one line for each event, a stable phrase with key-value fields, as JSON or text.

    log = get_log("mirror")
    log.info("blob served", digest=digest, source="peer", peer=peer_id, bytes=n)

JSON lines have Spegel's keys (`time`, `level`, `msg`), so that its users' log pipelines keep working. Digests, peer ids
and errors are written with `str()`. Callers must never pass a secret, only its name.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
VALUE_CHARS_MAX = 500  # a value may be a stranger's text: it must not make a line too long
_ROOT = "speil"


class Log:
    """A logger of one component. Keyword arguments become fields of the line; those that are None are left out."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        """Details for whoever looks for a fault."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A pull, a peer, a change of state; few enough for production."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something that an operator should look at, while the node goes on."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something that should not happen, or that stops work."""
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, **fields: Any) -> None:
        """A bug: one line with the error and where it happened. The traceback follows at DEBUG."""
        self._emit(logging.ERROR, event, {**fields, "error": repr(error), "where": _where(error)})
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, exc_info=error)

    def _emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


def get_log(component: str) -> Log:
    """The log of `component`. Nothing is written before `configure` is called."""
    return Log(logging.getLogger(f"{_ROOT}.{component}"))


def configure(level: str = "INFO", format: str = "json", stream: TextIO | None = None) -> None:
    """Write lines of `level` (one of LEVELS) and above to `stream` (None: stderr), as `json` or `text`.

    Also the warnings of libraries. A second call replaces the first.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    root = logging.getLogger(_ROOT)
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(logging.WARNING if level == "WARN" else level)
    # lines of libraries: warnings and above only
    library = logging.getLogger()
    library.handlers[:] = [handler]
    library.setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", {})
    plain = {key: _value(value) for key, value in fields.items() if value is not None}
    return {"component": record.name.removeprefix(f"{_ROOT}."), **plain}


def _where(error: BaseException) -> str | None:
    """Where the error was raised; of a group, the first error in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else None


def _value(value: Any) -> Any:
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value(item) for item in value]
    return str(value)[:VALUE_CHARS_MAX]


def _level(record: logging.LogRecord) -> str:
    return "WARN" if record.levelno == logging.WARNING else record.levelname


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": _level(record), "msg": record.getMessage(), **_fields(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(
            f"{key}={json.dumps(value) if _needs_quotes(value) else value}" for key, value in _fields(record).items()
        )
        line = f"{time} {_level(record):5} {record.getMessage()}  {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _needs_quotes(value: Any) -> bool:
    return isinstance(value, list) or (
        isinstance(value, str) and (not value or not value.isprintable() or " " in value)
    )
