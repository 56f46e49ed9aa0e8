"""The operator's files keep links, owners and modes, and directories that are not a certs.d are refused."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from speil.host_config.record import RECORD
from speil.host_config.tree import BACKUP, HostConfigError, configure, preview, restore
from speil.host_config.write import write as real_write
from speil.hosts_toml import sections
from speil.hosts_toml.document import Mirrors, parse
from tests.shell.certs_d import leftovers, snapshot

TARGET = "http://127.0.0.1:5000"
MIRRORS = Mirrors((TARGET,))
CACHE = 'server = "https://up.test"\n\n[host."https://cache.test"]\ncapabilities = ["pull"]\n'
SPEGEL = f"server = '{{}}'\n\n[host.'{TARGET}']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "etc" / "certs.d"
    directory.mkdir(parents=True)
    return directory


def put(certs: Path, name: str, text: str = CACHE) -> Path:
    file = certs / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def hosts(certs: Path, name: str) -> list[str]:
    return list(parse((certs / name / "hosts.toml").read_text())["host"])


@pytest.fixture(params=[False, True], ids=["exchanged", "flipped inside"])
def in_place(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- what is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepend", [False, True])
def test_links_owners_modes_times_and_attributes_come_back(certs: Path, prepend: bool, in_place: bool) -> None:
    put(certs, "_shared/hosts.toml")
    put(certs, "docker.io/ca.crt").chmod(0o640)
    (certs / "docker.io" / "hosts.toml").symlink_to("../_shared/hosts.toml")
    (certs / "docker.io" / "far.crt").symlink_to("/nowhere/on/this/machine.crt")
    (certs / "docker.io" / "near.crt").symlink_to("../../pki/ca.crt")
    (certs / "quay.io").symlink_to("_shared")
    (certs / "far.test").symlink_to("/nowhere/on/this/machine")
    put(certs, "docker.io/secret.key").chmod(0o400)
    if os.getuid() == 0:
        os.chown(certs / "docker.io" / "ca.crt", 1000, 1001)
        os.chown(certs / "docker.io", 1002, 1003)
    (certs / "docker.io").chmod(0o750)
    os.utime(certs / "docker.io" / "ca.crt", ns=(1, 10**18))
    try:
        os.setxattr(certs / "docker.io" / "ca.crt", "user.note", b"mine")
        has_attributes = True
    except OSError:
        has_attributes = False
    before = snapshot(certs)
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=prepend, in_place=in_place)
    backup = {
        path.removeprefix(f"{BACKUP}/"): one for path, one in snapshot(certs).items() if path.startswith(f"{BACKUP}/")
    }
    assert backup == before
    if prepend:
        assert hosts(certs, "docker.io") == [TARGET, "https://cache.test"]
        assert (certs / "docker.io" / "far.crt").is_symlink()
        assert not (certs / "docker.io" / "hosts.toml").is_symlink()
        assert (certs / "_shared" / "hosts.toml").read_text() == CACHE, "what a link leads to is not written to"
    assert restore(certs, in_place=in_place)
    assert snapshot(certs) == before
    if has_attributes:
        assert os.getxattr(certs / "docker.io" / "ca.crt", "user.note") == b"mine"


def test_a_registry_whose_directory_is_a_link_gets_one_of_its_own(certs: Path) -> None:
    put(certs, "_shared/hosts.toml", CACHE.replace('server = "https://up.test"', 'ca = "ca.crt"'))
    put(certs, "_shared/ca.crt", "certificate")
    (certs / "docker.io").symlink_to("_shared")
    before = snapshot(certs)
    for _ in range(2):
        configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
        assert hosts(certs, "docker.io") == [TARGET, "https://cache.test"]
        assert (certs / "docker.io" / "ca.crt").read_text() == "certificate"
    restore(certs)
    assert snapshot(certs) == before
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
    put(certs, "docker.io/new.crt", "new")
    restore(certs)
    assert (certs / "docker.io" / "new.crt").read_text() == "new"
    assert (certs / "docker.io" / "ca.crt").read_text() == "certificate"
    assert hosts(certs, "docker.io") == ["https://cache.test"]


def test_a_link_that_can_not_be_read_is_refused_where_it_is_named_and_else_kept(certs: Path) -> None:
    put(certs, "quay.io/hosts.toml")
    (certs / "far.test").symlink_to("/nowhere/on/this/machine")
    before = snapshot(certs)
    with pytest.raises(HostConfigError, match=r"far\.test leads to /nowhere.*Mount that path"):
        configure(certs, ("https://far.test",), MIRRORS, prepend_existing=True)
    assert snapshot(certs) == before
    said: list[str] = []
    configure(certs, (), MIRRORS, prepend_existing=True, say=said.append)
    assert (certs / "far.test").readlink() == Path("/nowhere/on/this/machine")
    assert "without speil in front" in said[0]


def test_a_directory_with_underscores_is_where_containerd_reads(certs: Path) -> None:
    put(certs, "reg.test_5000_/hosts.toml")
    put(certs, "reg.test:5000/hosts.toml", "never = 'read'\n")
    before = snapshot(certs)
    for prepend, wanted in ((True, [TARGET, "https://cache.test"]), (False, [TARGET])):
        said: list[str] = []
        assert configure(certs, ("http://reg.test:5000",), MIRRORS, prepend_existing=prepend, say=said.append) == [
            "reg.test_5000_"
        ]
        assert hosts(certs, "reg.test_5000_") == wanted
        assert (certs / "reg.test:5000" / "hosts.toml").read_text() == "never = 'read'\n"
        assert "reg.test_5000_ is what containerd reads for reg.test:5000" in said[0]
    restore(certs)
    assert snapshot(certs) == before


def test_named_registries_and_default_beside_each_other(certs: Path) -> None:
    put(certs, "quay.io/hosts.toml")
    put(certs, "_default/hosts.toml", '[host."https://all.test"]\nca = "ca.pem"\nclient = [["a.cert", "/b.key"]]\n')
    configure(certs, ("http://named.test", ""), MIRRORS, prepend_existing=True)
    assert hosts(certs, "_default") == [TARGET, "https://all.test"]
    assert hosts(certs, "quay.io") == [TARGET, "https://cache.test"]
    table = parse((certs / "named.test" / "hosts.toml").read_text())["host"]["https://all.test"]
    assert table == {"ca": "../_default/ca.pem", "client": [["../_default/a.cert", "/b.key"]]}
    configure(certs, ("http://named.test", ""), MIRRORS, prepend_existing=False)
    assert sorted(os.listdir(certs)) == [RECORD, BACKUP, "_default", "named.test"]
    assert parse((certs / "named.test" / "hosts.toml").read_text())["server"] == "http://named.test"


def test_a_file_of_ours_that_was_edited_is_the_operators_without_our_lines(certs: Path) -> None:
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=False)
    file = certs / "docker.io" / "hosts.toml"
    file.write_text(file.read_text().replace("https://registry-1.docker.io", "https://own.test") + "\n# mine\n")
    restore(certs)
    text = file.read_text()
    assert TARGET not in text
    assert parse(text) == {"server": "https://own.test", "host": {}}, (
        "with a table of hosts, or containerd 1.6 rejects it"
    )
    assert "# mine" in text


def test_an_edit_of_our_lines_alone_is_not_kept(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
    file = certs / "docker.io" / "hosts.toml"
    file.write_text(file.read_text().replace("200ms", "1s"))
    restore(certs)
    assert snapshot(certs) == before


def test_running_again_writes_nothing(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    configure(certs, ("https://docker.io", "https://quay.io"), MIRRORS, prepend_existing=True)
    inode = certs.stat().st_ino
    configure(certs, ("https://docker.io", "https://quay.io"), MIRRORS, prepend_existing=True)
    assert certs.stat().st_ino == inode


def test_a_file_with_credentials_is_for_root_alone_and_its_mode_is_kept_else(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml").chmod(0o640)
    for headers, mode in (((), 0o640), ((("Authorization", "Basic eDp5"),), 0o600)):
        configure(certs, ("https://docker.io",), Mirrors((TARGET,), headers=headers), prepend_existing=True)
        assert (certs / "docker.io" / "hosts.toml").stat().st_mode & 0o777 == mode
    assert (certs / RECORD).stat().st_mode & 0o777 == 0o600
    assert "eDp5" not in (certs / RECORD).read_text()


# --- others were here ----------------------------------------------------------------------------------------


def spegel(certs: Path, *registries: str, prepend: bool = False) -> None:
    """Configure as Spegel 0.7.4 does; early speil versions did the same."""
    backup = certs / BACKUP
    backup.mkdir()
    for entry in list(certs.iterdir()):
        if entry != backup:
            entry.rename(backup / entry.name)
    for registry in registries:
        text = SPEGEL.format(f"https://{registry}")
        old = backup / registry / "hosts.toml"
        (certs / registry).mkdir()
        if prepend and old.exists():
            text += "\n\n[host.'https://cache.test']\ncapabilities = ['pull']\n"
            for file in old.parent.iterdir():
                if file != old:
                    shutil.copy2(file, certs / registry)
        (certs / registry / "hosts.toml").write_text(text)


@pytest.mark.parametrize("prepend", [False, True])
@pytest.mark.parametrize("first", [restore, None])
def test_spegels_backup_is_taken_over(certs: Path, prepend: bool, first: object) -> None:
    put(certs, "docker.io/hosts.toml")
    put(certs, "docker.io/ca.crt", "certificate")
    put(certs, "quay.io/hosts.toml")
    (certs / "quay.io" / "ca.crt").symlink_to("../docker.io/ca.crt")
    before = snapshot(certs)
    spegel(certs, "docker.io", "ghcr.io", prepend=prepend)
    put(certs, "later.test/hosts.toml", "[host.'https://later-cache.test']\n")
    later = {path: one for path, one in snapshot(certs).items() if path.startswith("later.test")}
    if first is None:
        mirrors = Mirrors(("http://10.0.0.7:30020",))
        configure(certs, ("https://docker.io",), mirrors, prepend_existing=True)
        assert hosts(certs, "docker.io") == ["http://10.0.0.7:30020", "https://cache.test"], "Spegel's mirror is gone"
        assert not (certs / "ghcr.io").exists()
    restore(certs)
    assert snapshot(certs) == {**before, **later}


def test_the_first_generations_files_are_known_by_their_empty_table(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    spegel(certs)
    host = '[host]\n\n  [host."http://127.0.0.1:30020"]\n    capabilities = ["pull", "resolve"]\n'
    old = f'server = "https://ghcr.io"\n\n{host}'
    put(certs, "ghcr.io/hosts.toml", old)
    put(certs, "docker.io/hosts.toml", old.replace("https://ghcr.io", "https://registry-1.docker.io"))
    restore(certs)
    assert snapshot(certs) == before


@pytest.mark.parametrize("record", ["", "no json", "[]", '{"version": 99}', '{"version": 1, "written": 5}'])
def test_a_record_that_was_damaged_is_as_none(certs: Path, record: str) -> None:
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    configure(certs, ("https://docker.io", "https://ghcr.io"), MIRRORS, prepend_existing=False)
    (certs / RECORD).write_text(record)
    assert restore(certs)
    assert snapshot(certs) == before


def test_a_backup_that_was_removed_loses_what_was_in_it_and_nothing_else(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    put(certs, "quay.io/hosts.toml")
    configure(certs, ("https://docker.io", "https://ghcr.io"), MIRRORS, prepend_existing=False)
    shutil.rmtree(certs / BACKUP)
    assert restore(certs)
    assert sorted(snapshot(certs)) == ["quay.io", "quay.io/hosts.toml"]


# --- what is refused -----------------------------------------------------------------------------------------


def test_a_path_that_is_no_directory_of_registries_is_refused_and_left_alone(tmp_path: Path) -> None:
    etc = tmp_path / "containerd"
    put(etc, "config.toml", "version = 2\n")
    put(etc, "certs.d/docker.io/hosts.toml")
    put(tmp_path, "parent/certs.d/docker.io/hosts.toml")
    put(tmp_path, "bin/runc", "x")
    put(tmp_path, "bin/cni/bridge", "x")
    put(tmp_path, "docker/daemon.json", "{}")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = snapshot(tmp_path)
    for path, words in [
        (etc, rf"has config\.toml.*as {etc}/certs\.d"),
        (etc / "config.toml", rf"is a file.*as {etc}/certs\.d"),
        (etc / "config.toml" / "certs.d", "is a file"),
        (etc / "certs.d" / "docker.io", rf"directory of one registry.*as {etc}/certs\.d"),
        (tmp_path / "parent", r"has a certs\.d"),
        (tmp_path / "bin", r"has cni, runc and no directory with a hosts\.toml"),
        (tmp_path / "docker", r"has daemon\.json"),
        (tmp_path / "dangling", "is a link to nowhere"),
        (Path(f"{etc}/certs.d:/etc/docker/certs.d"), rf"a list of directories.*as {etc}/certs\.d"),
        (Path("/"), "a system directory"),
        (Path("/etc/../etc"), "a system directory"),
        (Path("/etc/containerd/"), "a system directory.*as /etc/containerd/certs.d"),
        (Path(), "the path is empty"),
    ]:
        for work in (configure, preview):
            with pytest.raises(HostConfigError, match=words):
                work(path, (), MIRRORS, prepend_existing=False)
    assert snapshot(tmp_path) == before


def test_what_an_older_speil_moved_away_is_brought_back(tmp_path: Path) -> None:
    etc = tmp_path / "containerd"
    put(etc, "config.toml", "version = 2\n")
    before = snapshot(etc)
    spegel(etc, "_default")
    with pytest.raises(HostConfigError, match=r"has config\.toml"):
        configure(etc, (), MIRRORS, prepend_existing=False)
    assert restore(etc)
    assert snapshot(etc) == before


def test_entries_that_can_not_be_kept_are_refused(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(certs)  # the path of a socket is short
        one.bind("odd")
        os.chdir("/")
    with pytest.raises(HostConfigError, match="odd is no file, directory or link"):
        configure(certs, (), MIRRORS, prepend_existing=False)
    assert sorted(os.listdir(certs)) == ["docker.io", "odd"]


@pytest.mark.parametrize(
    "text",
    ["broken = ", '[host."https://x"]\ncapabilities = "pull"\n', "\ufeff# mark\n[host]\n", 'host = "x"\n'],
)
def test_what_containerd_can_not_read_is_refused_where_it_is_named_and_else_kept(certs: Path, text: str) -> None:
    put(certs, "docker.io/hosts.toml", text)
    before = snapshot(certs)
    with pytest.raises(HostConfigError, match=r"docker\.io/hosts\.toml is .*; correct or remove it"):
        configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
    assert snapshot(certs) == before
    said: list[str] = []
    configure(certs, (), MIRRORS, prepend_existing=True, say=said.append)
    assert (certs / "docker.io" / "hosts.toml").read_text() == text
    assert "correct or remove it" in said[0]
    restore(certs)
    assert snapshot(certs) == before


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe[host]", "UTF-8"), (b"\xef\xbb\xbf[host]\n", "byte order mark")]
)
def test_bytes_that_are_no_text_are_refused(certs: Path, data: bytes, words: str) -> None:
    put(certs, "docker.io/hosts.toml").write_bytes(data)
    with pytest.raises(HostConfigError, match=words):
        configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)


def mounted(mount: str, certs: Path, *calls: str) -> subprocess.CompletedProcess[str]:
    """Run `calls` (configure, restore) on `certs` after `mount`, in a separate mount namespace."""
    script = (
        "import sys; from pathlib import Path\n"
        "from speil.host_config.tree import configure, restore; from speil.hosts_toml.document import Mirrors\n"
        "certs, mirrors = Path(sys.argv[1]), Mirrors(('http://127.0.0.1:5000',))\n"
    )
    run = [sys.executable, "-c", script + "\n".join(calls), str(certs)]
    argv = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *run]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespaces here")
    return done


CONFIGURE = "configure(certs, (), mirrors, prepend_existing=True)"


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_mount_inside_is_not_moved(tmp_path: Path) -> None:
    put(tmp_path, "certs.d/docker.io/hosts.toml")
    put(tmp_path, "other/hosts.toml")
    (tmp_path / "certs.d" / "quay.io").mkdir()
    done = mounted(f"mount --bind {tmp_path}/other {tmp_path}/certs.d/quay.io", tmp_path / "certs.d", CONFIGURE)
    assert "quay.io is a mount inside" in done.stderr
    assert (tmp_path / "other" / "hosts.toml").read_text() == CACHE
    assert leftovers(tmp_path / "certs.d") == []


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_volume_of_exactly_this_directory_is_changed_inside(tmp_path: Path) -> None:
    """As in a pod: a mount point on a read-only file system."""
    host, pod = tmp_path / "host" / "certs.d", tmp_path / "pod" / "certs.d"
    put(host, "docker.io/hosts.toml")
    (host / "docker.io" / "far.crt").symlink_to("../../../pki/ca.crt")
    pod.mkdir(parents=True)
    inode, before = host.stat().st_ino, snapshot(host)
    mount = f"mount -t tmpfs none {pod.parent} && mkdir {pod} && mount --bind {host} {pod}"
    mount += f" && mount -o remount,ro {pod.parent}"
    done = mounted(mount, pod, CONFIGURE, CONFIGURE)
    assert done.returncode == 0, done.stderr
    assert hosts(host, "docker.io") == [TARGET, "https://cache.test"]
    assert (host.stat().st_ino, leftovers(host)) == (inode, [])
    assert mounted(mount, pod, "assert restore(certs)", "assert not restore(certs)").returncode == 0
    assert snapshot(host) == before


def test_an_edit_during_the_run_is_not_lost(certs: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool) -> None:
    put(certs, "docker.io/hosts.toml")
    edits = iter(["[host.'https://first.test']\n", "[host.'https://second.test']\n"])

    def write(*arguments: object) -> None:
        if text := next(edits, None):
            put(certs, "docker.io/hosts.toml", text)
        real_write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("speil.host_config.tree.write", write)
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True, in_place=in_place)
    assert hosts(certs, "docker.io") == [TARGET, "https://second.test"]
    assert leftovers(certs) == []


def test_two_runs_at_once_wait_for_each_other(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(5):
                configure(certs, ("https://docker.io", f"https://r{number}.test"), MIRRORS, prepend_existing=True)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert leftovers(certs) == []
    assert hosts(certs, "docker.io") == [TARGET, "https://cache.test"]
    restore(certs)
    assert snapshot(certs) == before


# --- the preview ---------------------------------------------------------------------------------------------


def test_the_preview_is_a_diff_and_changes_nothing(certs: Path) -> None:
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    mirrors = Mirrors((TARGET,), headers=(("Authorization", "Basic c2VjcmV0"),))
    text = preview(certs, ("https://docker.io", "https://ghcr.io"), mirrors, prepend_existing=True)
    assert "--- a/docker.io/hosts.toml\n+++ b/docker.io/hosts.toml\n" in text
    assert "--- /dev/null\n+++ b/ghcr.io/hosts.toml\n" in text
    assert "+[host.'http://127.0.0.1:5000']\n" in text
    assert ' [host."https://cache.test"]\n' in text, "the operator's lines are not touched"
    assert "c2VjcmV0" not in text
    assert snapshot(certs) == before
    assert preview(certs / "new", ("https://docker.io",), MIRRORS, prepend_existing=True)
    assert not (certs / "new").exists()
    configure(certs, ("https://docker.io", "https://ghcr.io"), mirrors, prepend_existing=True)
    assert preview(certs, ("https://docker.io", "https://ghcr.io"), mirrors, prepend_existing=True) == ""


@pytest.mark.parametrize("prepend", [True, False])
@pytest.mark.parametrize("is_file", [True, False])
def test_a_backup_that_the_operator_made_is_no_configuration_and_comes_back(
    tmp_path: Path, prepend: bool, is_file: bool
) -> None:
    """Old entries in it are not used, and it is not treated as a backup of Spegel."""
    certs = tmp_path / "certs.d"
    (certs / "docker.io").mkdir(parents=True)
    (certs / "docker.io" / "hosts.toml").write_text('server = "https://now.test"\n[host]\n')
    if is_file:
        (certs / "_backup").write_text("notes")
    else:
        (certs / "_backup" / "retired.test").mkdir(parents=True)
        (certs / "_backup" / "retired.test" / "hosts.toml").write_text('server = "https://gone.test"\n[host]\n')
    before = snapshot(certs)
    assert not restore(certs)
    assert snapshot(certs) == before
    for _ in range(2):
        configure(certs, ("https://docker.io",), Mirrors(("http://127.0.0.1:5000",)), prepend_existing=prepend)
        assert not (certs / "retired.test").exists()
    assert restore(certs)
    assert snapshot(certs) == before
    assert not restore(certs)


def test_a_long_file_takes_no_long_time() -> None:
    """Counted in parsed characters: a line of a long comment or array must not parse the whole text again."""
    parsed = 0
    loads = tomllib.loads

    def counting(text: str) -> object:
        nonlocal parsed
        parsed += len(text)
        return loads(text)

    text = 'server = "https://a.test"\nlist = [\n' + '["one", "two"],\n' * 3000 + ']\n[host."https://b.test"]\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", counting)
        root, tables = sections.split(text)
    assert len(tables) == 1
    assert root + tables[0].text == text
    assert parsed < 4 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        'server = "https://up.test"\nhost = { "https://cache.test" = { capabilities = ["pull"] } }\n',
        'host."https://cache.test".capabilities = ["pull"]\n',
        "x = " + "[" * 2000 + "]" * 2000 + "\n",
    ],
    ids=["inline table", "dotted keys", "deep"],
)
def test_a_file_that_can_not_be_merged_does_not_keep_speil_from_other_registries(certs: Path, text: str) -> None:
    put(certs, "odd.test/hosts.toml", text)
    put(certs, "docker.io/hosts.toml")
    before = snapshot(certs)
    notes: list[str] = []
    assert configure(certs, (), MIRRORS, prepend_existing=True, say=notes.append) == ["_default", "docker.io"]
    assert len(notes) == 1
    assert "odd.test" in notes[0]
    assert (certs / "odd.test" / "hosts.toml").read_text() == text
    assert restore(certs)
    assert snapshot(certs) == before
    with pytest.raises(HostConfigError, match=r"odd\.test"):
        configure(certs, ("https://odd.test",), MIRRORS, prepend_existing=True)
    assert snapshot(certs) == before


def test_a_certificate_whose_name_is_no_text_is_named(certs: Path) -> None:
    put(certs, "docker.io/" + os.fsdecode(b"\xff.crt"))
    before = snapshot(certs)
    with pytest.raises(HostConfigError, match="not UTF-8"):
        configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
    assert snapshot(certs) == before
    assert configure(certs, (), MIRRORS, prepend_existing=True) == ["_default"]
    assert restore(certs)
    assert snapshot(certs) == before


@pytest.mark.parametrize("link", ["directory", "file"])
def test_a_link_into_what_is_written_may_not_change_another_registry(certs: Path, link: str) -> None:
    """Otherwise containerd would ask the registry of docker.io for quay.io."""
    put(certs, "docker.io/hosts.toml")
    if link == "directory":
        (certs / "quay.io").symlink_to("docker.io")
    else:
        (certs / "quay.io").mkdir()
        (certs / "quay.io" / "hosts.toml").symlink_to("../docker.io/hosts.toml")
    before = snapshot(certs)
    with pytest.raises(HostConfigError, match=r"quay\.io is, or holds, a link"):
        configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=False)
    assert snapshot(certs) == before
    configure(certs, ("https://docker.io",), MIRRORS, prepend_existing=True)
    assert hosts(certs, "quay.io") == [TARGET, "https://cache.test"]
    assert restore(certs)
    assert snapshot(certs) == before
