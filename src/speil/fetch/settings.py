"""The settings of fetching from peers."""

from __future__ import annotations

from dataclasses import dataclass

from speil.oci.manifest import MANIFEST_BYTES_MAX
from speil.setting import SettingError, byte_size, setting
from speil.setting.kinds import show_size


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What is verified before it is passed on."""

    verify_bytes_max: int = setting(
        byte_size,
        4 << 20,
        help="Blobs of peers up to this size are verified before the first byte is passed on; "
        "larger ones are passed on as they come, containerd verifies them. Manifests always are.",
    )
    verify_memory_max: int = setting(
        byte_size,
        32 << 20,
        help="Memory for all content that is being verified; beyond it containerd is sent upstream.",
    )

    def check(self) -> None:
        """Raise SettingError where the two do not fit."""
        least = max(self.verify_bytes_max, MANIFEST_BYTES_MAX)
        if self.verify_memory_max < least:
            raise SettingError(
                "--verify-memory-max must hold one manifest and one blob of --verify-bytes-max: "
                f"at least {show_size(least)}"
            )
