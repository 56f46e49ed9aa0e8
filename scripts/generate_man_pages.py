"""Write the man pages into a folder, made from the declared settings (`make man`, and the build of the wheel).

scripts/generate_man_pages.py FOLDER [DATE]    DATE is that of the version: 2026-11-26; without it, of git's commit
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("date", nargs="?", default="")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    from speil.cli.man import pages

    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(arguments.date or date_of_commit()).items():
        (arguments.folder / name).write_text(text, "ascii")
    return 0


def date_of_commit() -> str:
    """Of SOURCE_DATE_EPOCH where it is set, else of git: the same sources give the same pages."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        epoch = done.stdout.strip() if done.returncode == 0 else ""
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%d") if epoch else ""


if __name__ == "__main__":
    sys.exit(main())
