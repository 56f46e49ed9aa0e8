"""Files of this machine that others may have written: whatever is there, a node neither waits nor ends, and says it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.election.record import decode
from speil.kube.api import _date
from speil.lease.base import LeaseError
from speil.lease.file import FileLease
from speil.libp2p.identity import Identity
from speil.local_file import parse_json, read_file
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.routing.peerstore import FILE_NAME, Peerstore
from speil.store.base import NotFoundError, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory
from speil.store.oci_layout import INDEX_BYTES_MAX, OciLayoutStore
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.lease_conformance import RECORD
from tests.shell.nodes import running_node, write_layout

Place = Callable[[Path], object]
START_SECONDS_MAX = 90.0  # of a process, on a machine where ten wait for each core


def _sparse(path: Path) -> None:
    """A terabyte by its size, nothing on the disk."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


# what a path may name that is no file of ours
ODD: dict[str, Place] = {
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "directory": Path.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a fifo": _link_to_fifo,
    "link in a circle": lambda path: path.symlink_to(path.name),
    "huge": _sparse,
    "empty": Path.touch,
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00["),
    "deep": lambda path: path.write_bytes(b"[" * 30_000),
    "deep, closed": lambda path: path.write_bytes(b'{"manifests":' + b"[" * 900 + b"]" * 900 + b"}"),
    "a number": lambda path: path.write_bytes(b"3"),
    "a long number": lambda path: path.write_bytes(b'{"manifests":' + b"9" * 10_000 + b"}"),
    "lone surrogates": lambda path: path.write_bytes(rb'["\ud800", {"spec": "\udfff"}]'),
    "not JSON": lambda path: path.write_bytes(b"\x00 garbage"),
}
every_odd = pytest.mark.parametrize("odd", ODD)


def _file_named(caplog: pytest.LogCaptureFixture, path: Path) -> bool:
    return any(
        str(path) in f"{record.message} {getattr(record, 'fields', '')}"
        for record in caplog.records
        if record.levelname == "WARNING"
    )


# --- an OCI layout ------------------------------------------------------------------------------------------------


@every_odd
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
async def test_an_odd_index_is_a_store_that_is_away_and_a_line_that_names_it(
    tmp_path: Path, odd: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "layout"
    await write_layout(root, random_image(1), "reg.test/a:1")
    (root / name).unlink()
    ODD[odd](root / name)
    store = OciLayoutStore(root)
    if odd == "deep, closed":
        return  # an entry that is damaged, which costs itself alone
    if name == "index.json":
        with pytest.raises(StoreUnavailableError, match=str(root / name)):
            await store.images()
    elif stat.S_ISREG((root / name).lstat().st_mode):
        return  # nobody reads it
    with caplog.at_level("WARNING", logger="speil"):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.run())
            await eventually(lambda: _file_named(caplog, root / name), what="it is said")
            task.cancel()


@pytest.mark.parametrize("target", ["/etc/passwd", "elsewhere"])
async def test_links_lead_nowhere(tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:
    image = random_image(1)
    for place in ("index.json", "blobs", "blobs/sha256", f"blobs/sha256/{image.index.digest.hex}"):
        root = tmp_path / place.replace("/", "-") / "layout"
        await write_layout(root, image, "reg.test/a:1")
        (root / place).rename(root.parent / "elsewhere")
        (root / place).symlink_to(target if target.startswith("/") else root.parent / "elsewhere")
        store = OciLayoutStore(root)
        if place == "index.json":
            assert not store.available
            with pytest.raises(StoreUnavailableError, match="symbolic link"):
                await store.resolve("reg.test/a:1")
            continue
        with pytest.raises(NotFoundError):
            await store.open(image.index.digest)
        with pytest.raises(NotFoundError):
            await store.size(image.index.digest)
        if place.startswith("blobs/sha256/"):
            assert _file_named(caplog, root / place)
        else:
            assert "symbolic link" in store.problem()
            assert store._list_blobs() == set()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("odd", [name for name, place in ODD.items() if name in list(ODD)[:6]])
def test_a_blob_that_is_no_file_is_not_here(
    tmp_path: Path, odd: str, strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    digest = Digest.of(b"x")
    blobs = BlobDirectory(tmp_path, strict=strict)
    blobs.path(digest).parent.mkdir(parents=True)
    ODD[odd](blobs.path(digest))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(NotFoundError):
            blobs.open(digest)
        with pytest.raises(NotFoundError):
            blobs.size(digest)
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor stays open"
    assert sum("a blob can't be served" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_blob_on_a_disk_that_fails_is_not_here(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that were "away" for it would be looked at again and again, and announce nothing."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    directory, digest = BlobDirectory(tmp_path), Digest.of(b"x")
    monkeypatch.setattr("speil.store.blob_directory.os.stat", fails)
    with pytest.raises(NotFoundError):
        directory.size(digest)
    monkeypatch.undo()
    monkeypatch.setattr("speil.store.blob_directory.open_file", fails)
    with pytest.raises(NotFoundError):
        directory.open(digest)
    assert "a blob can't be served" in caplog.text


async def test_a_damaged_entry_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = random_image(1)
    await write_layout(tmp_path, image, "reg.test/a:1")
    index = json.loads((tmp_path / "index.json").read_bytes())
    name = {"io.containerd.image.name": "reg.test/b:1"}
    odd: list[object] = [
        5, None, [], {}, "x", {"annotations": 3}, {"annotations": ["io.containerd.image.name"]},
        {"annotations": name}, {"annotations": name, "digest": 3}, {"annotations": name, "digest": "sha256:../../x"},
        {"annotations": {"io.containerd.image.name": {"a": []}}, "digest": str(image.index.digest)},
    ]  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [*odd, *index["manifests"], *odd]}))
    assert [one.name for one in await OciLayoutStore(tmp_path).images()] == ["reg.test/a:1"]
    assert _file_named(caplog, tmp_path / "index.json")


async def test_a_damaged_index_is_read_once_and_a_mended_one_again(tmp_path: Path) -> None:
    await write_layout(tmp_path, random_image(1), "reg.test/a:1")
    good = (tmp_path / "index.json").read_bytes()
    store = OciLayoutStore(tmp_path)
    (tmp_path / "index.json").write_bytes(b"[" * INDEX_BYTES_MAX)
    reads = 0
    original = store._read_document

    def counted() -> dict[str, object]:
        nonlocal reads
        reads += 1
        return original()

    store._read_document = counted  # type: ignore[method-assign]
    for _ in range(20):
        with pytest.raises(StoreUnavailableError):
            await store.resolve("reg.test/a:1")
    assert reads == 1
    (tmp_path / "index.json").write_bytes(good)
    assert await store.resolve("reg.test/a:1")


def test_a_path_that_is_no_layout_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert "there is no directory" in OciLayoutStore(tmp_path / "nowhere").problem()
    assert "is not a directory" in OciLayoutStore(tmp_path / "file").problem()
    assert "is this an OCI image layout" in OciLayoutStore(tmp_path / "empty").problem()


async def test_a_node_says_that_its_layout_is_wrong_and_serves_it_once_it_is_right(tmp_path: Path) -> None:
    layout = tmp_path / "layuot"
    async with running_node(tmp_path, layout) as node:

        def lines(level: str) -> list[str]:
            return [line for line in node.log.read_text().splitlines() if f" {level} " in line and str(layout) in line]

        await eventually(lambda: lines("WARN"), what="it is said")
        assert "there is no directory" in lines("WARN")[0]
        await write_layout(layout, random_image(1), "reg.test/a:1")
        await eventually(lambda: any("can be served" in line for line in lines("INFO ")), what="and that it is over")
        metrics = f"http://{node.host}:{node.metrics_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(metrics) as response:
            assert 'speil_store_available{region="",zone=""} 1.0' in await response.text()


# --- peers.json, the Lease file -----------------------------------------------------------------------------------


@every_odd
def test_odd_lists_of_peers_are_none(tmp_path: Path, odd: str, caplog: pytest.LogCaptureFixture) -> None:
    ODD[odd](tmp_path / FILE_NAME)
    store = Peerstore(tmp_path)
    assert store.load() == []
    assert _file_named(caplog, tmp_path / FILE_NAME)
    peer = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/10.0.0.2/tcp/5001"),))
    store.save([peer])
    if odd != "directory":
        assert store.load() == [peer.addresses[0].with_peer_id(peer.peer_id)], "the next list takes its place"


def test_a_damaged_peer_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(["/ip4/1.2", 5, None, ["x"], "/ip4/10.0.0.2/tcp/5001", "/dns/\ud800"]))
    assert [str(address) for address in Peerstore(tmp_path).load()] == ["/ip4/10.0.0.2/tcp/5001"]


@every_odd
async def test_an_odd_lease_file_is_nobodys_or_an_error_and_never_waited_for(
    tmp_path: Path, odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lease"
    ODD[odd](path)
    lock = FileLease(path)
    if odd in list(ODD)[:7]:
        for call in (lock.get(), lock.put(RECORD, None)):
            with pytest.raises(LeaseError, match=str(path)):
                await call
        return
    lease = await lock.get()
    assert lease is not None
    assert lease.record.holder_identity == ""
    assert _file_named(caplog, path)
    written = await lock.put(RECORD, lease)
    assert written.record.holder_identity == RECORD.holder_identity, "writing it again mends it"


@pytest.mark.parametrize("odd", ["fifo", "directory", "link to a device"])
async def test_an_odd_lock_file_is_not_waited_for(tmp_path: Path, odd: str) -> None:
    ODD[odd](tmp_path / ".lease.lock")
    with contextlib.suppress(LeaseError):
        await FileLease(tmp_path / "lease").put(RECORD, None)


LESS_ODD = ["deep, closed", "huge", "not UTF-8"]


@pytest.mark.parametrize("odd", ["fifo", "deep", *(pytest.param(odd, marks=pytest.mark.long) for odd in LESS_ODD)])
async def test_a_node_starts_whatever_its_files_are(tmp_path: Path, odd: str) -> None:
    data, lease, layout = tmp_path / "data", tmp_path / "lease", tmp_path / "layout"
    data.mkdir()
    await write_layout(layout, random_image(1), "reg.test/a:1")
    (layout / "index.json").unlink()
    for path in (data / FILE_NAME, lease, layout / "index.json"):
        ODD[odd](path)
    flags = ["--bootstrap-kind=file", f"--lease-file={lease}", f"--data-dir={data}", "--region=a"]
    async with running_node(tmp_path, layout, *flags, ready=False) as node:
        # the Lease last: the election takes it up, or says what keeps it
        for path in (data / FILE_NAME, layout / "index.json", lease):
            await eventually(
                lambda path=path: any(  # type: ignore[misc]
                    str(path) in line and (" WARN " in line or " ERROR " in line)
                    for line in node.log.read_text().splitlines()
                ),
                timeout_seconds=START_SECONDS_MAX,
                what=f"{path.name} is named",
            )
        assert node.process.returncode is None
    assert "Traceback" not in node.log.read_text()


# --- the readers --------------------------------------------------------------------------------------------------


def test_a_file_is_read_to_its_bound_and_a_growing_one_no_further(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read_file(file, 10).data == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        read_file(file, 9)
    with pytest.raises(OSError, match="more than 9 bytes"):
        read_file("/proc/self/status", 9)  # stat gives its size as 0


LEAVES = st.none() | st.integers() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_not_nested_too_deep_is_read(document: object) -> None:
    depth = _depth(document)
    assert parse_json(json.dumps(document), depth) == document
    if depth > 1:
        with pytest.raises(ValueError, match="nested deeper"):
            parse_json(json.dumps(document), depth - 1)


def _depth(node: object) -> int:
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    return 1 + max((_depth(child) for child in children), default=0)


def test_seldom_bounds_the_lines_of_any_sequence() -> None:
    now = 0.0
    seldom = Seldom(60, clock=lambda: now)
    said = 0
    for step in range(6000):  # ten minutes in which it fails in another way every tenth of a second, and works between
        now = step / 10
        said += seldom.due(f"failure {step}")
        if step % 3 == 0:
            seldom.over()
    assert said == 120


# --- the API server's clock ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00+00:00"),
        ("Thu, 01 Jan 2026 00:00:00 -0000", "2026-01-01T00:00:00+00:00"),
        ("Thu, 01 Jan 2026 00:00:00", "2026-01-01T00:00:00+00:00"),
        ("Thu, 01 Jan 2026 02:00:00 +0200", "2026-01-01T00:00:00+00:00"),
        ("", None), ("garbage", None), ("-0000", None), (" ", None), (",", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Thu, 01 Jan 2026 00:00:00 +999999", None),
        ("Thu, 99 Foo 2026 99:99:99 GMT", None),
    ],
)  # fmt: skip
def test_a_date_has_a_zone_or_is_none(text: str, shown: str | None) -> None:
    date = _date(text)
    assert (date.isoformat() if date else None) == shown
    lease = decode({"metadata": {}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}, date)
    assert lease.age_seconds == (0 if shown else None)


@given(st.text(max_size=60))
def test_no_date_header_is_an_error(text: str) -> None:
    date = _date(text)
    assert date is None or date.tzinfo is not None
