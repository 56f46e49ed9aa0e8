"""The folder in which an image is made. It goes away with the build, in time also where somebody waits for the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

WORKERS = 4  # the disk has more than one removal under way: two trees of five thousand files take half the time


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder, removed at the end of the block with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="speil-image-"))
    try:
        yield folder
    finally:
        trees = [tree for top in folder.iterdir() if _is_folder(top) for tree in top.iterdir() if _is_folder(tree)]
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(shutil.rmtree, trees))
        shutil.rmtree(folder)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
