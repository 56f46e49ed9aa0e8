"""Declares settings: one declaration gives the flag, the environment variable and the documentation. A core.

Each package has a frozen dataclass of its settings with `setting(…)` fields. `speil.config` reads them.
"""

from speil.setting.declare import Kind, Setting, SettingError, declared, setting
from speil.setting.kinds import (
    BOOLEAN_WORDS,
    ListenAddress,
    boolean,
    byte_size,
    duration,
    each,
    integer,
    listen_address,
    one_of,
    socket_path,
    text,
)

__all__ = [
    "BOOLEAN_WORDS",
    "Kind",
    "ListenAddress",
    "Setting",
    "SettingError",
    "boolean",
    "byte_size",
    "declared",
    "duration",
    "each",
    "integer",
    "listen_address",
    "one_of",
    "setting",
    "socket_path",
    "text",
]
