"""What the Containerfile copies is what `make image` packs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from scripts.image.archive import _CONFIG
from scripts.image.layers import copy_tree, make_layer

from tests.requirements import ROOT


def test_a_copied_tree_has_the_modes_of_its_layer(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder, mode in (("root", 0o700), ("tmp", 0o700), ("var/tmp", 0o755), ("var/lock", 0o1777)):
        (tree / folder).mkdir(parents=True)
        (tree / folder).chmod(mode)
    for file, mode in (("root/secret", 0o600), ("root/tool", 0o4755), ("root/open", 0o666)):
        (tree / file).write_text(file)
        (tree / file).chmod(mode)
    (tree / "link").symlink_to("root/tool")
    with tarfile.open(fileobj=io.BytesIO(make_layer(tree, lambda data: data).data)) as tar:
        expected = {member.name: member.mode for member in tar if not member.issym()}
    copy_tree(tree, tmp_path / "copy")
    copied = {
        str(path.relative_to(tmp_path / "copy")): path.stat().st_mode & 0o7777
        for path in (tmp_path / "copy").rglob("*")
        if not path.is_symlink()
    }
    assert copied == expected
    assert expected["var/lock"] == 0o755
    assert expected["root/tool"] == 0o755
    assert (tmp_path / "copy" / "link").readlink() == Path("root/tool")


def test_the_containerfile_has_the_archives_configuration() -> None:
    stage = (ROOT / "Containerfile").read_text().partition("FROM scratch")[2].replace("\\\n", " ")
    lines = dict(line.split(" ", 1) for line in stage.splitlines() if " " in line and not line.startswith("COPY"))
    assert lines["ENV"].split() == _CONFIG["Env"]
    assert lines["USER"] == _CONFIG["User"]
    assert lines["WORKDIR"] == _CONFIG["WorkingDir"]
    assert lines["ENTRYPOINT"] == '["{}"]'.format(*_CONFIG["Entrypoint"])
