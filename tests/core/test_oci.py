"""Parsers of the oci package: digests, references, endpoints, ranges, manifests, media types."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.oci import byte_range, endpoint, manifest, media_type
from speil.oci.digest import Digest, DigestError
from speil.oci.reference import InvalidReferenceError, Reference
from speil.testing.images import random_image

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGEST = "sha256:" + "0123456789abcdef" * 4
DESCRIBED = ["digest", "size", "mediaType"]
VALUES = st.none() | st.integers() | st.floats() | st.sampled_from([DIGEST, "x", [], {}, True])


@given(HEX)
def test_a_digest_survives_text(hex_text: str) -> None:
    assert str(Digest.parse(f"sha256:{hex_text}")) == f"sha256:{hex_text}"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:ab", DIGEST.upper(), "md5:" + "a" * 32, DIGEST + "0", "x" + DIGEST]
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(DigestError):
        Digest.parse(text)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_digest_matches_its_content_alone(data: bytes, other: bytes) -> None:
    assert Digest.of(data).matches(data)
    assert Digest.of(data).matches(other) == (data == other)


@pytest.mark.parametrize(
    ("text", "registry", "name", "tag"),
    [
        ("docker.io/library/busybox:1.37", "docker.io", "library/busybox", "1.37"),
        ("localhost:5000/a:b", "localhost:5000", "a", "b"),
        (f"ghcr.io/org/app@{DIGEST}", "ghcr.io", "org/app", None),
        (f"ghcr.io/org/app:v1@{DIGEST}", "ghcr.io", "org/app", "v1"),
        ("[fd00::1]:5000/a:b", "[fd00::1]:5000", "a", "b"),
    ],
)
def test_references(text: str, registry: str, name: str, tag: str | None) -> None:
    reference = Reference.parse(text)
    assert (reference.registry, reference.name, reference.tag) == (registry, name, tag)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text", ["", "busybox", "docker.io/Library/x:1", "docker.io/x", DIGEST, "docker.io/x:", "docker.io/x:a b"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Reference.parse(text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reference_parser(text: str) -> None:
    with contextlib.suppress(InvalidReferenceError):
        assert str(Reference.parse(text)) == text


@pytest.mark.parametrize(
    ("header", "size", "wanted"),
    [
        (None, 10, None),
        ("bytes=0-", 10, None),
        ("bytes=0-4", 10, (0, 5)),
        ("bytes=5-", 10, (5, 10)),
        ("bytes=5-99", 10, (5, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=4-2", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("lines=1-2", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=-", 10, None),
    ],
)
def test_byte_ranges(header: str | None, size: int, wanted: tuple[int, int] | None) -> None:
    found = byte_range.parse(header, size)
    assert (found and (found.start, found.stop)) == wanted


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_behind_the_end_is_unsatisfiable(header: str) -> None:
    with pytest.raises(byte_range.UnsatisfiableError) as caught:
        byte_range.parse(header, 10)
    assert caught.value.content_range == "bytes */10"


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_range_lies_within_the_content(size: int, first: int, length: int) -> None:
    try:
        found = byte_range.parse(f"bytes={first}-{first + length}", size)
    except byte_range.UnsatisfiableError:
        assert first >= size
        return
    assert found is not None
    assert found.start == first
    assert found.start < found.stop <= size
    assert found.length <= length + 1


def test_endpoints() -> None:
    assert isinstance(endpoint.parse("/v2/"), endpoint.Ping)
    blob = endpoint.parse(f"/v2/a/b/blobs/{DIGEST}")
    assert isinstance(blob, endpoint.Content)
    assert (blob.name, blob.registry, blob.key) == ("a/b", None, DIGEST)
    tag = endpoint.parse("/v2/library/x/manifests/1.0", "docker.io")
    assert isinstance(tag, endpoint.Content)
    assert tag.key == "docker.io/library/x:1.0"
    assert tag.target == "/v2/library/x/manifests/1.0?ns=docker.io"
    nested = endpoint.parse("/v2/a/manifests/b/manifests/c", "reg.test:80")
    assert isinstance(nested, endpoint.Content)
    assert (nested.name, nested.target) == ("a/manifests/b", "/v2/a/manifests/b/manifests/c?ns=reg.test%3A80")


@pytest.mark.parametrize(
    ("path", "ns"),
    [
        ("/v2/x/manifests/latest", None),
        ("/v2/x/blobs/latest", "docker.io"),
        ("/v2/x/tags/list", "docker.io"),
        ("/v2/X/manifests/1", "docker.io"),
        ("/v2/../manifests/1", "docker.io"),
        ("/v2/x/manifests/1", "a b"),
        ("/v1/x/manifests/1", "docker.io"),
        ("/v2/manifests/1", "docker.io"),
    ],
)
def test_what_is_no_endpoint_is_refused(path: str, ns: str | None) -> None:
    with pytest.raises(endpoint.EndpointError):
        endpoint.parse(path, ns)


@given(st.text(max_size=80), st.none() | st.text(max_size=20))
def test_no_path_breaks_the_endpoint_parser(path: str, ns: str | None) -> None:
    for one in (path, f"/v2/{path}", f"/v2/{path}/manifests/{path}"):
        with contextlib.suppress(endpoint.EndpointError):
            endpoint.parse(one, ns)


def test_manifests_name_their_children() -> None:
    image = random_image(1)
    index = manifest.parse(image.blobs[image.index.digest])
    assert index is not None
    assert index.is_index
    assert [child.digest for child in index.children] == [one.digest for one in image.manifests.values()]
    amd64 = manifest.parse(image.blobs[image.manifests["amd64"].digest])
    assert amd64 is not None
    assert not amd64.is_index
    assert len(amd64.children) == 4


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["mediaType", "schemaVersion", "config", "layers", "manifests", "digest", "size"]),
                inner,
                max_size=5,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_break_the_manifest_parser(data: bytes) -> None:
    manifest.parse(data)


def test_a_manifest_without_a_media_type_gets_its_type_from_its_shape() -> None:
    document = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 1}, "layers": [{"digest": DIGEST, "size": 2}]}
    found = manifest.parse(json.dumps(document).encode())
    assert found is not None
    assert found.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert manifest.parse(b'{"architecture":"amd64","os":"linux"}') is None


SHAPES: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([None, "", 5, [], {}, "a/b", "a\r\nb: c/d", *sorted(media_type.MANIFESTS)]),
        "schemaVersion": st.sampled_from([None, 1, 2, "2"]),
        **{
            key: st.none() | st.integers() | st.lists(st.none() | st.dictionaries(st.sampled_from(DESCRIBED), VALUES))
            for key in ("manifests", "layers", "blobs", "fsLayers", "config", "subject")
        },
    },
)


@given(SHAPES)
def test_no_shape_breaks_the_manifest_parser_or_the_header(document: dict[str, object]) -> None:
    found = manifest.parse(json.dumps(document).encode())
    if found is not None:
        assert media_type.is_media_type(found.media_type)
        assert all(child.size >= 0 for child in found.children)
        for told in ("", *media_type.MANIFESTS):
            kind = found.type_with_hint(told)
            assert kind in (found.media_type, told)
            assert (kind in media_type.INDEXES) == (found.media_type in media_type.INDEXES)


def filled(start: str, piece: str, end: str, size: int = manifest.MANIFEST_BYTES_MAX) -> bytes:
    return (start + piece * ((size - len(start) - len(end)) // len(piece)) + end).encode()


@pytest.mark.parametrize(
    "data",
    [
        filled('{"schemaVersion":2,"layers":[', "{},", "{}]}"),
        filled('{"layers":', "[", "}"),
        filled('{"layers":', '{"":', "}"),
        filled('{"layers":', "1", "}"),
        filled('{"layers":[', "1" * 4300 + ",", "1]}"),
        filled('{"layers":[', "1." + "1" * 100 + ",", "1]}"),
        filled("{", '"layers":[],', '"layers":[]}'),
        filled('{"layers":"', "\\u00e9", '"}'),
        filled('{"layers":[', '{"digest":"' + DIGEST + '"},', "{}]}"),
        filled('{"layers":[', "{},", "{}]}", manifest.VALUES_MAX),
        filled('{"layers":[', '{"a":{}},', "{}]}", manifest.VALUES_MAX * 3),
        filled('{"layers":[', "1,", "{}]}", manifest.VALUES_MAX * 2),
        b" " * (manifest.MANIFEST_BYTES_MAX - 2) + b"{}",
        b"[" * manifest.MANIFEST_BYTES_MAX,
    ],
    ids=range(14),
)
def test_what_a_manifest_may_cost_is_bounded(data: bytes) -> None:
    assert len(data) <= manifest.MANIFEST_BYTES_MAX
    tracemalloc.start()
    try:
        found = manifest.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert found is None or len(found.children) <= manifest.CHILDREN_MAX


def test_children_beyond_the_bound_are_counted() -> None:
    many = [{"digest": DIGEST, "size": 1}] * (manifest.CHILDREN_MAX + 5)
    found = manifest.parse(json.dumps({"manifests": many}).encode())
    assert found is not None
    assert (len(found.children), found.left_off) == (manifest.CHILDREN_MAX, 5)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"layers": [], "config": {"mediaType": "application/vnd.docker.container.image.v1+json"}}, "DOCKER_MANIFEST"),
        ({"manifests": [{"mediaType": media_type.DOCKER_MANIFEST, "digest": DIGEST}]}, "DOCKER_LIST"),
        ({"manifests": [], "layers": [{"digest": DIGEST}]}, "OCI_MANIFEST"),
        ({"config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers"}}, None),
        ({"mediaType": "no type"}, None),
        ({"mediaType": None, "config": {"digest": DIGEST}}, "OCI_MANIFEST"),
        ({}, None),
    ],
)
def test_shapes(document: dict[str, object], kind: str | None) -> None:
    found = manifest.parse(json.dumps(document).encode())
    assert (found and found.media_type) == (kind and getattr(media_type, kind))


def test_the_type_that_is_asked_for() -> None:
    index, one = media_type.OCI_INDEX, media_type.OCI_MANIFEST
    assert media_type.asked_type(f"{index}, */*") == index
    assert media_type.asked_type(f"{index.upper()};q=0.5") == index
    assert media_type.asked_type(f"{index}, {one}") == ""
    assert media_type.asked_type("") == ""
    assert media_type.manifest_type("application/octet-stream") == ""
