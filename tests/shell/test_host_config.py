"""speil configuration and cleanup on a certs.d directory, also when they are killed at any point."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from speil.host_config.record import RECORD
from speil.host_config.switch import STAGING_PREFIX
from speil.host_config.tree import BACKUP, HostConfigError, configure, restore
from speil.hosts_toml.document import Mirrors
from tests.shell.certs_d import killed_after

MIRRORS = Mirrors(("http://127.0.0.1:5000",))
DOCKER, GHCR = "https://docker.io", "https://ghcr.io"
OLD = {
    "docker.io/hosts.toml": 'server = "https://own.test"\n\n[host."https://cache.test"]\ncapabilities = ["pull"]\n',
    "docker.io/ca.pem": "certificate",
    "quay.io/hosts.toml": '[host."https://quay-cache.test"]\n',
}
Tree = dict[str, str]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A certs.d with some configuration, in memory if possible, because it is written a thousand times."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="speil-test-", dir=shm if os.access(shm, os.W_OK) else None) as folder:
        root = Path(folder) / "containerd" / "certs.d"
        for name, text in OLD.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        yield root


def read(root: Path, *, backup: bool = True) -> Tree:
    """All files below a directory, with links followed as containerd does."""
    found = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(STAGING_PREFIX))
        for name in sorted({*files} - {RECORD}):
            file = Path(folder) / name
            if file.exists():  # skip dangling links
                found[str(file.relative_to(root))] = file.read_text()
    return {name: text for name, text in found.items() if backup or not name.startswith(BACKUP)}


def backed_up(tree: Tree) -> Tree:
    return {name.removeprefix(f"{BACKUP}/"): text for name, text in tree.items() if name.startswith(BACKUP)}


@pytest.fixture(params=[False, True], ids=["exchanged", "flipped inside"])
def in_place(request: pytest.FixtureRequest) -> bool:
    """Both methods: exchange the whole directory, or change a link inside a mount point."""
    return bool(request.param)


def test_named_registries_are_written_and_the_others_stay(directory: Path, in_place: bool) -> None:
    assert configure(directory, (DOCKER, GHCR), MIRRORS, prepend_existing=False, in_place=in_place) == [
        "docker.io",
        "ghcr.io",
    ]
    tree = read(directory)
    assert backed_up(tree) == OLD
    assert "127.0.0.1" in tree["docker.io/hosts.toml"]
    assert "cache.test" not in tree["docker.io/hosts.toml"]
    assert "docker.io/ca.pem" not in tree
    assert tree["quay.io/hosts.toml"] == OLD["quay.io/hosts.toml"]
    assert (directory / "ghcr.io" / "hosts.toml").stat().st_mode & 0o777 == 0o644


def test_all_registries_give_way_to_the_default(directory: Path, in_place: bool) -> None:
    configure(directory, (), MIRRORS, prepend_existing=False, in_place=in_place)
    assert set(read(directory, backup=False)) == {"_default/hosts.toml"}


def test_existing_hosts_and_certificates_are_kept_behind_ours(directory: Path, in_place: bool) -> None:
    configure(directory, (DOCKER,), MIRRORS, prepend_existing=True, in_place=in_place)
    tree = read(directory)
    text = tree["docker.io/hosts.toml"]
    assert text.index("127.0.0.1") < text.index("cache.test")
    assert tree["docker.io/ca.pem"] == "certificate"


def test_running_again_starts_from_what_was_there_first(directory: Path, in_place: bool) -> None:
    configure(directory, (GHCR,), MIRRORS, prepend_existing=True, in_place=in_place)
    configure(directory, (DOCKER,), Mirrors(("http://127.0.0.1:6000",)), prepend_existing=True, in_place=in_place)
    once = read(directory)
    configure(directory, (DOCKER,), Mirrors(("http://127.0.0.1:6000",)), prepend_existing=True, in_place=in_place)
    assert read(directory) == once
    assert "ghcr.io/hosts.toml" not in once
    assert backed_up(once) == OLD


def test_restoring_brings_everything_back(directory: Path, in_place: bool) -> None:
    configure(directory, (), MIRRORS, prepend_existing=False, in_place=in_place)
    assert restore(directory, in_place=in_place)
    assert read(directory) == OLD
    assert not (directory / BACKUP).exists()
    assert not restore(directory), "there is nothing more to restore"


def test_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "certs.d"
    configure(directory, (DOCKER,), MIRRORS, prepend_existing=False)
    assert "docker.io/hosts.toml" in read(directory)
    assert restore(directory)
    assert read(directory) == {}


def test_a_hosts_toml_that_can_not_be_read_changes_nothing(directory: Path) -> None:
    (directory / "docker.io" / "hosts.toml").write_text("broken = ")
    before = read(directory)
    with pytest.raises(HostConfigError, match=r"docker\.io/hosts\.toml is not TOML.*correct or remove it"):
        configure(directory, (DOCKER,), MIRRORS, prepend_existing=True)
    assert read(directory) == before


# --- killed at any point -------------------------------------------------------------------------------------


def outcomes(directory: Path, work: Callable[[], object], reset: Callable[[], None], stride: int) -> list[Tree]:
    """The directory after a kill before each `stride`-th write in turn; the last entry is the complete run."""
    found, steps, ended = [], 0, False
    while not ended:
        reset()
        ended = killed_after(steps, work)
        found.append(read(directory))
        steps += stride
        assert steps < 500
    assert steps > 10, "there were steps to be killed at"
    return found


def rebuild(directory: Path, tree: Tree) -> None:
    """Make a directory hold exactly `tree`."""
    shutil.rmtree(directory.parent)
    directory.mkdir(parents=True)
    for name, text in tree.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_any_point_the_directory_is_the_old_or_the_new_one_and_the_next_run_goes_on(
    directory: Path, in_place: bool, stride: int
) -> None:
    def work() -> None:
        configure(directory, (DOCKER, GHCR), MIRRORS, prepend_existing=False, in_place=in_place)

    def undo() -> None:
        restore(directory, in_place=in_place)

    found = outcomes(directory, work, lambda: rebuild(directory, OLD), stride)
    new = found[-1]
    assert all(tree in (OLD, new) for tree in found)
    assert OLD in found
    assert backed_up(new) == OLD

    found = outcomes(directory, undo, lambda: rebuild(directory, new), stride)
    assert all(tree in (OLD, new) for tree in found)
    assert found[-1] == OLD

    ended, steps = False, 0
    while not ended:
        rebuild(directory, OLD)
        ended = killed_after(steps, work)
        work()
        assert read(directory) == new, "the next run finishes"
        undo()
        assert read(directory) == OLD, "nothing is lost"
        assert sorted(os.listdir(directory)) == ["docker.io", "quay.io"], "nothing is left over"
        steps += 7 * stride  # a sample: the steps were tested above


def test_a_leftover_of_a_killed_run_is_removed(directory: Path) -> None:
    leftover = directory.parent / f"{STAGING_PREFIX}-{directory.name}"
    leftover.mkdir()
    (leftover / "junk").write_text("x")
    configure(directory, (DOCKER,), MIRRORS, prepend_existing=False)
    assert [entry.name for entry in directory.parent.iterdir()] == [directory.name]
