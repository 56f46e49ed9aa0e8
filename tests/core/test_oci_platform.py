"""The manifest that a node pulls from an index, and the rules of registry filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest

from speil.oci.digest import Digest
from speil.oci.manifest import parse
from speil.oci.platform import (
    Platform,
    PlatformError,
    PlatformImage,
    best,
    platform_of_config,
    read,
    show,
)
from speil.oci.selection import Selection

DIGESTS = [Digest.of(str(number).encode()) for number in range(9)]


def entries_of_index(document: Mapping[str, object]) -> tuple[PlatformImage, ...]:
    index = parse(json.dumps(document).encode())
    assert index is not None
    assert index.is_index
    assert index.needs == ()
    return index.entries


def entries(*texts: str | None) -> list[PlatformImage]:
    return [PlatformImage(DIGESTS[at], Platform.parse(text) if text else None) for at, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i686", "linux/386"),
        ("windows/amd64", "windows/amd64"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_names_are_normalised_as_containerd_does(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/\x00"])
def test_what_is_no_platform_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(PlatformError, match="linux/amd64"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("node", "offered", "taken"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "linux/386"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/arm64"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7", "linux/amd64"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm/v7", ["linux/arm64", "linux/arm/v5"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", ["unknown/unknown"], None),
        ("linux/amd64", [None, "linux/arm64"], 0),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/s390x", ["linux/amd64"], None),
        ("linux/amd64", [], None),
    ],
)
def test_a_node_takes_what_its_containerd_would(node: str, offered: list[str | None], taken: int | None) -> None:
    found = best(entries(*offered), Platform.parse(node))
    assert (found and found.manifest) == (DIGESTS[taken] if taken is not None else None)


def test_of_two_alike_the_first_is_taken() -> None:
    found = best(entries("linux/arm64", "linux/amd64", "linux/amd64"), Platform.parse("linux/amd64"))
    assert found is not None
    assert found.manifest == DIGESTS[1]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"manifests": 3}', b'{"manifests": null}', b"[" * 100_000])
def test_what_can_not_be_read_names_nothing(data: bytes) -> None:
    index = parse(data)
    assert index is None or (index.is_index and index.entries == ())
    assert platform_of_config(data) is None


def test_an_index_is_read_entry_by_entry() -> None:
    good = {"digest": str(DIGESTS[0]), "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    document = {
        "manifests": [
            good,
            3,
            {"digest": "x"},
            {"platform": good["platform"]},
            {"digest": str(DIGESTS[1])},
            {"digest": str(DIGESTS[2]), "platform": {"os": 1, "architecture": "amd64"}},
            {"digest": str(DIGESTS[3]), "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": str(DIGESTS[4]), "platform": {"architecture": "arm"}},
            {"digest": str(DIGESTS[5]), "platform": {"os": "linux", "architecture": "amd64", "variant": None}},
        ]
    }
    found = entries_of_index(document)
    said = ["linux/arm64", "None", "unknown/amd64", "unknown/unknown", "linux/arm/v7", "linux/amd64"]
    assert [str(one.platform) for one in found] == said
    assert found[3].platform is not None
    assert found[3].platform.is_unknown


def test_an_index_of_a_type_that_is_not_known_has_the_entries_of_its_manifests_alone() -> None:
    document: dict[str, object] = {
        "mediaType": "application/vnd.test.index+json",
        "config": {"digest": str(DIGESTS[0])},
        "manifests": [{"digest": str(DIGESTS[1])}],
        "blobs": [{"digest": str(DIGESTS[2])}],
    }
    assert [one.manifest for one in entries_of_index(document)] == [DIGESTS[1]]


def test_a_manifest_needs_its_config_and_the_layers_that_may_be_distributed() -> None:
    kinds = (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    )
    layers = [{"mediaType": kind, "digest": str(DIGESTS[at])} for at, kind in enumerate(kinds, 1)]
    found = parse(json.dumps({"config": {"digest": str(DIGESTS[0])}, "layers": layers}).encode())
    assert found is not None
    assert (found.config, found.needs, found.entries) == (DIGESTS[0], (DIGESTS[0], DIGESTS[1]), ())
    assert len(found.children) == 4


def test_entries_without_an_os_are_told_apart_by_their_architecture() -> None:
    items = [
        {"digest": str(DIGESTS[at]), "platform": {"architecture": arch}} for at, arch in enumerate(("arm64", "amd64"))
    ]
    found = entries_of_index({"manifests": items})
    assert best(found, Platform.parse("linux/amd64")) == found[1]
    assert best(found[:1], Platform.parse("linux/amd64")) is None


@pytest.mark.parametrize("word", ["a\r\nX-Y: z", "a,b", "a=b", "a/b", "\ud800", "é", "a" * 1000, " ", [], {}, 7, True])
@pytest.mark.parametrize("key", ["os", "architecture", "variant"])
def test_any_words_of_a_platform_fit_into_the_header(key: str, word: object) -> None:
    platform = {"os": "linux", "architecture": "arm64"} | {key: word}
    (entry,) = entries_of_index({"manifests": [{"digest": str(DIGESTS[0]), "platform": platform}]})
    of_config = platform_of_config(json.dumps(platform).encode())
    for one in (entry, PlatformImage(DIGESTS[0], of_config)):
        assert read(show([one]), 1) == [one]
        assert one.platform is None or one.platform not in Platform.parse("linux/arm64").runs or not word


def test_what_a_holder_has_survives_its_header() -> None:
    held = entries("linux/amd64", "linux/arm/v7", None)
    assert read(show(held), 3) == held
    assert read(show(held), 2) is None
    for text in ("", ",", "nonsense", f"linux={DIGESTS[0]}", "linux/amd64=sha256:1", f"*{DIGESTS[0]}"):
        assert read(text, 9) is None


def selection(*filters: str, registries: tuple[str, ...] = ()) -> Selection:
    return Selection(tuple(map(re.compile, filters)), lambda registry: not registries or registry in registries)


@pytest.mark.parametrize(
    ("pattern", "content", "tag"),
    [
        # (allowed) content of reg.test/private/app, and its tag 1
        (r"^reg[.]test/private/app$", False, False),
        (r"/private/[a-z]+$", False, False),
        (r"^reg[.]test/private/", False, False),
        (r":1$", True, False),
        (r"app:\d+$", True, False),
        (r":latest$", True, True),
        (r"@sha256:", True, True),
        (r"sha256", True, True),
        (r"^private/", True, True),
        (r"", False, False),
    ],
)
def test_a_filter_is_matched_against_the_repository_and_against_the_tag(pattern: str, content: bool, tag: bool) -> None:
    rule = selection(pattern)
    assert rule.allows_repository("reg.test", "private/app") is content
    assert rule.allows_tag("reg.test", "private/app", "1") is tag


def test_registries_that_are_not_mirrored_take_no_part() -> None:
    rule = selection(registries=("docker.io",))
    assert rule.allows_tag("docker.io", "library/busybox", "1")
    assert not rule.allows_repository("reg.test", "lab/app")
    assert rule.allows_repository(None, "lab/app"), "nobody said of which registry it is: the content tells"
    assert Selection(is_open=True).allows_tag("any.test", "a", "b")
