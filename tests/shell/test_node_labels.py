"""The labels of the last start: kept for a start without the API, and a help only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speil.kube.node_labels import FILE_NAME, KeptLabels

LABELS = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1", "team": "x"}


def test_the_topology_of_this_node_is_kept_and_no_other_label(tmp_path: Path) -> None:
    memory = KeptLabels(tmp_path / "data")
    assert memory.load("n1") == {}
    memory.save("n1", LABELS)
    assert memory.load("n1") == {key: LABELS[key] for key in LABELS if key != "team"}
    assert memory.load("n2") == {}, "a disk that was moved"
    memory.save("n1", {})
    assert memory.load("n1") == {}
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["", "[", "[" * 4000, "{}", '{"node": "n1", "labels": 3}', "null", "\xff"])
def test_a_damaged_file_is_no_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert KeptLabels(tmp_path).load("n1") == {}


def test_what_can_not_be_kept_stops_nobody(tmp_path: Path) -> None:
    KeptLabels(None).save("n1", LABELS)
    assert KeptLabels(None).load("n1") == {}
    (tmp_path / "file").touch()
    KeptLabels(tmp_path / "file").save("n1", LABELS)
    os.mkfifo(tmp_path / FILE_NAME)
    assert KeptLabels(tmp_path).load("n1") == {}
