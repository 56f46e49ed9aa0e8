"""Kinds of values: text, lists, booleans and durations as Go parses them, sizes, paths, listen addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speil.setting.declare import Kind, SettingError

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?(?:([KMGT]i?|k)?B?)?", re.ASCII)
_SPEGEL_SPEED = re.compile(r"(\d+)\s?([KMGT]?)Bps", re.ASCII)
_URL_WITH_PATH = re.compile(r"https?://[^/]+/.")
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}
BOOLEAN_WORDS = frozenset(_TRUE | _FALSE)


def _boolean(value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise SettingError(f"{value!r} is not a boolean: use true or false")


def parse_duration(value: str) -> float:
    """Seconds of a Go duration (time.ParseDuration): `20ms`, `1h30m`, `0`. Raises SettingError."""
    if value == "0":
        return 0.0
    if not value or _DURATION_PART.sub("", value):
        raise SettingError(f"{value!r} is not a duration: use a number with a unit, such as 20ms, 5s or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def show_duration(seconds: float) -> str:
    """A duration in the largest unit that keeps it whole: 0.02 → `20ms`, 900 → `15m`."""
    for unit, size in (("h", 3600), ("m", 60), ("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        count = seconds / size
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return "0" if seconds == 0 else f"{seconds:g}s"


def parse_size(value: str) -> int:
    """Bytes of `100MiB`, `1.5GB`, `64Mi`, `5000`: K, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024.

    Values of Spegel's --blob-speed (`10MBps`, powers of 1024) mean the same as there. Raises SettingError.
    """
    if match := _SPEGEL_SPEED.fullmatch(value):
        return int(match[1]) * _BINARY[match[2]]
    if match := _SIZE.fullmatch(value):
        unit = (match[2] or "").upper()
        if unit.endswith("I"):
            return int(float(match[1]) * _BINARY[unit[0]])
        return int(float(match[1]) * 1000 ** " KMGT".index(unit or " "))
    raise SettingError(f"{value!r} is not a size: use a number with a unit, such as 100MiB or 1GB")


def show_size(size: int) -> str:
    """A size in the largest binary unit that keeps it whole: 104857600 → `100MiB`."""
    for unit in "TGMK":
        if size and size % _BINARY[unit] == 0:
            return f"{size // _BINARY[unit]}{unit}iB"
    return str(size)


def _integer(value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise SettingError(f"{value!r} is not a whole number: use digits only")
    return int(value)


def _socket(value: str) -> str:
    """A path. Also takes `unix:///run/x.sock` and `unix:/run/x.sock`, as crictl and gRPC write it."""
    scheme, colon, rest = value.partition(":")
    if colon and scheme.isalpha():
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        if scheme != "unix" or not path.startswith("/") or path.startswith("//"):
            raise SettingError(f"{value!r} is not a socket's path: write it like /run/containerd/containerd.sock")
        return path
    return value


def _list(value: str) -> tuple[str, ...]:
    found: list[str] = []
    for part in filter(None, map(str.strip, value.split(","))):
        # a comma in the path of a URL belongs to the URL
        if found and _URL_WITH_PATH.match(found[-1]) and "://" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens; host "" is every address, IPv4 and IPv6. Written as in Go: `:5000`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """From `:5000`, `10.0.0.7:5000` or `[fd00::7]:5000`. Raises SettingError."""
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
            raise SettingError(f"{text!r} is not an address to listen on: use host:port or :port, such as :5000")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise SettingError(f"{text!r} is not an address to listen on: write IPv6 as [address]:port")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


boolean = Kind("boolean", _boolean, lambda value: str(value).lower(), is_flag=True)
duration = Kind("duration", parse_duration, show_duration)
byte_size = Kind("size", parse_size, show_size)
integer = Kind("number", _integer)
listen_address = Kind("address", ListenAddress.parse)
socket_path = Kind("path", _socket)
text = Kind("text", str)


def one_of(*choices: str) -> Kind:
    """A kind whose value is one of `choices`."""

    def parse(value: str) -> str:
        if value not in choices:
            raise SettingError(f"{value!r} is not known: use one of {', '.join(choices)}")
        return value

    return Kind("|".join(choices), parse, choices=choices)


def each(name: str, parse_item: Callable[[str], Any], show_item: Callable[[Any], str] = str) -> Kind:
    """A list kind whose items go through `parse_item`, which may raise ValueError."""

    def parse(value: str) -> tuple[Any, ...]:
        try:
            return tuple(parse_item(item) for item in _list(value))
        except SettingError:
            raise
        except ValueError as error:
            raise SettingError(str(error)) from error

    return Kind(f"list of {name}", parse, lambda items: ",".join(show_item(item) for item in items), is_list=True)
