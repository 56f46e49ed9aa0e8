"""The setting of sharing in flight."""

from __future__ import annotations

from dataclasses import dataclass

from speil.claims.asker import HOLD_SECONDS_MAX, SHARE_WAIT_SECONDS
from speil.setting import Kind, SettingError, duration, setting

SHARE_WAIT_SECONDS_MIN = 0.2  # below it, a source that is only busy would be left, and each node would fetch


def _share_wait(value: str) -> float:
    seconds: float = duration.parse(value)
    if seconds and not SHARE_WAIT_SECONDS_MIN <= seconds <= HOLD_SECONDS_MAX:
        raise SettingError(
            f"{value!r} is not a share wait: say a duration from {duration.show(SHARE_WAIT_SECONDS_MIN)} to "
            f"{duration.show(HOLD_SECONDS_MAX)}, such as 3s, or 0 to switch sharing off"
        )
    return seconds


@dataclass(frozen=True, slots=True)
class SharingSettings:
    """How long a node waits for another one that downloads the same content."""

    share_wait: float = setting(
        Kind("duration", _share_wait, duration.shower),
        SHARE_WAIT_SECONDS,
        help="How long containerd's request waits without a byte for a node that downloads the same content; then "
        "another node is asked for. 0: nodes share complete content only.",
    )
