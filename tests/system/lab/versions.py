"""The containerds that tests run with."""

from __future__ import annotations

import shutil

from tests.conftest import need
from tests.requirements import tool_path
from tests.system.lab.containerd import ContainerdVersion


def containerd_version(major: int) -> ContainerdVersion:
    """Debian's 1.6, or the 2.x that was built; the test is skipped where it is missing."""
    need(f"containerd-{major}")
    program = shutil.which("containerd") if major == 1 else str(tool_path("containerd"))
    assert program
    return ContainerdVersion(f"containerd {major}", program, major)
