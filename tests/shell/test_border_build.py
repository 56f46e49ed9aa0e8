"""The border of a node, made from its settings: whom it admits, what it needs, what it logs as open."""

from __future__ import annotations

import io
import json
from ipaddress import ip_network
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from speil.border.build import Border, build_border
from speil.libp2p.identity import Identity
from speil.observe import logs
from speil.observe.metrics import Metrics
from speil.region.settings import RegionSettings
from speil.setting import SettingError


def built(shares_its_mesh: bool = False, **settings: Any) -> Border:
    made = RegionSettings(**settings)
    return build_border(made, made.identity(), Metrics(), shares_its_mesh=shares_its_mesh)


def test_who_names_no_region_is_admitted_where_the_mesh_is_shared_or_there_are_no_regions() -> None:
    assert not built(region="eu").policy.admits("")
    assert built(region="eu", shares_its_mesh=True).policy.admits("")
    assert built().policy.admits("")
    assert not built(region="eu", shares_its_mesh=True).policy.admits("us")


def test_a_node_outside_its_regions_networks_does_not_start() -> None:
    border = built(region="eu", region_networks=(ip_network("10.1.0.0/16"),))
    border.check_own_addresses(["10.1.2.3", "192.0.2.1"])
    border.check_own_addresses([])
    with pytest.raises(SettingError, match=r"--region-networks: none of this node's addresses \(10\.2\.0\.1\)"):
        border.check_own_addresses(["10.2.0.1"])


def test_a_secret_that_can_not_be_used_is_the_operators_to_correct(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(SettingError, match=r"--region-secret-file: .*can't be read"):
        built(region="eu", region_secret_file=str(path))
    path.write_text("short\n")
    with pytest.raises(SettingError, match=r"--region-secret-file: .*line 1 has 5 characters"):
        built(region="eu", region_secret_file=str(path))
    path.write_text(token_hex(32))
    border = built(region="eu", region_secret_file=str(path), node_name="n1")
    assert len(border.noise_keys()) == 1
    assert border.node_name == "n1"
    assert built(region="eu").noise_keys() == ()


@pytest.mark.parametrize(
    ("has_secret", "node_name", "resolve_tags", "expected"),
    [
        (False, "", True, ["peers answer tags without proof"]),
        (False, "", False, []),
        (True, "", True, ["this node's name is not known"]),
        (True, "not/a name", True, ["this node's name is not known"]),
        (True, "n1", True, []),
    ],
)
def test_what_is_open_is_logged_with_what_to_do(
    tmp_path: Path, has_secret: bool, node_name: str, resolve_tags: bool, expected: list[str]
) -> None:
    (tmp_path / "secret").write_text(token_hex(32))
    file = str(tmp_path / "secret") if has_secret else ""
    border = built(region="eu", region_secret_file=file, node_name=node_name)
    door = border.door(Identity.generate().peer_id, None, credentials=lambda: None)
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    border.log_what_is_open(door, resolve_tags=resolve_tags)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["msg"].partition(":")[0] for line in lines] == expected
    assert all(line["what_to_do"] for line in lines)
