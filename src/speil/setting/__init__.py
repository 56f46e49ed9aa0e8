"""How settings are declared and read: one declaration gives the flag, its env twin, its docs. A core.

Each package owns a frozen dataclass of its settings with `setting(…)` fields; `speil.config` joins them.
"""

from speil.setting.declare import Kind, Setting, SettingError, declared, setting
from speil.setting.kinds import (
    ListenAddress,
    boolean,
    byte_size,
    duration,
    each,
    integer,
    listen_address,
    one_of,
    text,
    text_list,
)

__all__ = [
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
    "text",
    "text_list",
]
