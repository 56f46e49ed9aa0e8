"""Any history of a node: operators edit, runs come with other settings, are killed, and cleanup comes in between.

After each run containerd (the model of it, which a system test compares with real ones) asks speil first, and then what
it would ask without speil; after each cleanup the operator's tree is there, to the byte.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from speil.host_config.nodes import Kind, scan
from speil.host_config.operator import BACKUP
from speil.host_config.proof import folders
from speil.host_config.record import RECORD
from speil.host_config.switch import entries
from speil.host_config.tree import configure, restore
from speil.hosts_toml.containerd import Generation, Host, resolve
from speil.hosts_toml.document import Mirrors, parse, without_targets
from tests.hosts_trees import FILES, UNREADABLE, text
from tests.properties import examples
from tests.shell.certs_d import Snapshot, killed_after, leftovers, snapshot, without_times_of_ours

NAMES = ["docker.io", "reg.test:5000", "reg.test_5000_", "localhost:5000", "_default", "quay.io"]
REGISTRIES = ["docker.io", "reg.test:5000", "localhost:5000", "quay.io", "other.test", "[fd00::1]:5000"]
URLS = [
    "https://docker.io",
    "http://reg.test:5000",
    "http://localhost:5000",
    "https://quay.io",
    "https://other.test",
    "",
]
TARGETS = [("http://127.0.0.1:5000",), ("http://10.0.0.9:30020", "http://10.0.0.9:30021"), ("http://[fd00::9]:30020",)]
OURS = {f"{target}/v2" for targets in TARGETS for target in targets}
SHAPES = sorted(
    {*FILES}
    - UNREADABLE
    - {"a timeout that is none", "a host inside its table"}
    - {name for name in FILES if "by hand" in name}
)
CERTIFICATES = ["ca.crt", "client.cert", "client.key", "special.pem", "docker-mirror.crt"]


class Histories(RuleBasedStateMachine):
    """`wanted` is the directory as it would be without speil. Edits inside our files are compared by their values."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.folder = tempfile.mkdtemp(prefix="speil-test-", dir=shm if os.access(shm, os.W_OK) else None)
        self.root = Path(self.folder) / "etc" / "certs.d"
        self.root.mkdir(parents=True)
        # beside it stands the operator's own directory, to which the same is done
        self.wanted = Path(self.folder) / "wanted" / "certs.d"
        self.wanted.mkdir(parents=True)
        self.replaced: set[str] = set()  # names whose live files are not the operator's
        self.written: set[str] = set()
        self.configured = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # --- the operator ----------------------------------------------------------------------------------------

    def _both(self, path: str, data: bytes | None, link: str = "", mode: int = 0o644) -> None:
        for root in (self.root, self.wanted):
            place = root / path
            place.parent.mkdir(exist_ok=True)
            if os.path.lexists(place):
                place.unlink()
            if data is None:
                place.symlink_to(link)
            else:
                place.write_bytes(data)
                place.chmod(mode)
                os.utime(place, ns=(10**18, 10**18))

    @rule(name=st.sampled_from(NAMES), shape=st.sampled_from(SHAPES), mode=st.sampled_from([0o644, 0o600]))
    def writes_a_hosts_file(self, name: str, shape: str, mode: int) -> None:
        self._both(f"{name}/hosts.toml", text(shape).encode(), mode=mode)

    @rule(name=st.sampled_from(NAMES), file=st.sampled_from(CERTIFICATES))
    def puts_a_certificate(self, name: str, file: str) -> None:
        self._both(f"{name}/{file}", b"certificate")

    @rule(name=st.sampled_from(NAMES), file=st.sampled_from(["ca.crt", "linked.crt", "hosts.toml"]))
    def links_a_file(self, name: str, file: str) -> None:
        target = {"hosts.toml": "../_shared/hosts.toml", "ca.crt": "../_shared/ca.crt"}.get(
            file, "/outside/the/pod.crt"
        )
        self._both("_shared/hosts.toml", text("kubespray").encode())
        self._both(f"{name}/{file}", None, target)

    @rule(name=st.sampled_from(NAMES))
    def removes_a_directory(self, name: str) -> None:
        if not (self.root / name).is_dir():
            return
        if name in self.replaced:  # the file of speil is removed, and what it stands for comes back
            live = {path.name for path in (self.root / name).iterdir()} - {"hosts.toml"}
            for one in live:
                (self.wanted / name / one).unlink()
            if f"{name}/hosts.toml" not in self.written:
                (self.wanted / name / "hosts.toml").unlink(missing_ok=True)
        elif (self.wanted / name).exists():
            shutil.rmtree(self.wanted / name)
        shutil.rmtree(self.root / name)

    @rule(name=st.sampled_from(NAMES))
    def adds_a_host_to_what_is_there(self, name: str) -> None:
        file = self.root / name / "hosts.toml"
        if not file.is_file() or file.is_symlink():
            return
        before = file.read_text()
        if "later.test" in before:
            return
        after = before.rstrip() + '\n\n[host."https://later.test"]\ncapabilities = ["pull"]\n'
        parse(after)
        file.write_text(after)
        theirs = self.wanted / name / "hosts.toml"
        theirs.parent.mkdir(exist_ok=True)
        theirs.unlink(missing_ok=True)
        theirs.write_text(without_targets(after, tuple(target for targets in TARGETS for target in targets)))

    # --- speil -----------------------------------------------------------------------------------------------

    @rule(
        urls=st.lists(st.sampled_from(URLS), unique=True, max_size=4).map(tuple),
        places=st.sampled_from(TARGETS),
        prepend=st.sampled_from([True, True, False]),
        in_place=st.booleans(),
        steps=st.one_of(st.none(), st.integers(0, 400)),
    )
    def runs(
        self, urls: tuple[str, ...], places: tuple[str, ...], prepend: bool, in_place: bool, steps: int | None
    ) -> None:
        mirrors = Mirrors(places)

        def work() -> list[str]:
            return configure(self.root, urls, mirrors, prepend_existing=prepend, in_place=in_place)

        if steps is not None:
            before = snapshot(self.root)
            ended = killed_after(steps, work)
            after = snapshot(self.root)
            names = work()
            new = snapshot(self.root)
            if not ended:
                assert after == before or without_times_of_ours(after) == without_times_of_ours(new)
        else:
            names = work()
            new = snapshot(self.root)
        assert leftovers(self.root) == []
        assert work() == names
        assert snapshot(self.root) == new, "a second run changes nothing"
        self.configured = True
        self._check_hosts(set(names), urls or ("",), places, prepend)
        backup = {path.removeprefix(f"{BACKUP}/"): one for path, one in new.items() if path.startswith(f"{BACKUP}/")}
        self._check_tree(backup)
        self.written = {f"{name}/hosts.toml" for name in names}
        self.replaced = set() if prepend else set(names)

    def _check_hosts(self, names: set[str], urls: tuple[str, ...], targets: tuple[str, ...], prepend: bool) -> None:
        live, without = self._folders(self.root), self._folders(self.wanted)
        mirrored = {url.rpartition("/")[2] for url in urls}
        for registry in REGISTRIES:
            for generation in Generation:
                found = resolve(live, registry, generation, "/c")
                was = resolve(without, registry, generation, "/c")
                if registry in mirrored or "" in urls:
                    assert [host.url for host in found[: len(targets)]] == [f"{target}/v2" for target in targets]
                    found = found[len(targets) :]
                    if not prepend or self._is_read_only_by(without, registry, Generation.V2):
                        continue
                    if registry == "reg.test:5000" and not self._has_any(without, registry):
                        assert self._hosts(found)[:-1] == self._hosts(was)[:-1]
                        continue  # the operator said http
                    assert self._hosts(found) == self._hosts(was), (registry, generation)
                elif not ({"_default"} & names and not prepend):
                    assert found == was, (registry, generation)

    @staticmethod
    def _hosts(hosts: list[Host]) -> list[Host]:
        return [host for host in hosts if host.url not in OURS]

    @staticmethod
    def _has_any(folders_: dict[str, dict[str, bytes]], registry: str) -> bool:
        names = [registry.replace(":5000", "_5000_"), registry, "_default"]
        name = next((name for name in names if name in folders_), None)
        return name is not None and any(
            one.endswith((".crt", ".cert")) or one == "hosts.toml" for one in folders_[name]
        )

    @staticmethod
    def _is_read_only_by(folders_: dict[str, dict[str, bytes]], registry: str, generation: Generation) -> bool:
        """containerd 1.6 ignores a file without hosts, and the two generations read a file of comments differently."""
        names = [registry.replace(":5000", "_5000_"), registry, "_default"]
        name = next((name for name in names if name in folders_), None)
        if name is None or "hosts.toml" not in folders_[name]:
            return False
        document = parse(folders_[name]["hosts.toml"].decode())
        return "host" not in document

    def _folders(self, root: Path) -> dict[str, dict[str, bytes]]:
        return {name: dict(folder) for name, folder in folders(scan(entries(root)), root).items()}

    @precondition(lambda self: self.configured)
    @rule(in_place=st.booleans(), steps=st.one_of(st.none(), st.integers(0, 300)))
    def cleans_up(self, in_place: bool, steps: int | None) -> None:
        def work() -> bool:
            return restore(self.root, in_place=in_place)

        if steps is not None:
            before = snapshot(self.root)
            ended = killed_after(steps, work)
            after = snapshot(self.root)
            assert ended or after == before or BACKUP not in after
        work()
        assert leftovers(self.root) == []
        found = snapshot(self.root)
        assert BACKUP not in found
        assert RECORD not in found
        self._check_tree(found)
        assert not work(), "there is nothing more to do"
        self.configured, self.replaced, self.written = False, set(), set()

    def _check_tree(self, found: Snapshot) -> None:
        """Byte by byte, except files with edits inside our files, which are compared by their values."""
        wanted = snapshot(self.wanted)
        assert found.keys() == wanted.keys()
        for path, entry in wanted.items():
            if entry[0] == "file" and b"later.test" in bytes(entry[1]):  # type: ignore[call-overload]
                here, there = (parse(bytes(one[1]).decode()) for one in (found[path], entry))  # type: ignore[call-overload]
                assert here == {"host": {}, **there} or here == there
                data = found[path][1]
                assert isinstance(data, bytes)
                (self.wanted / path).write_bytes(data)
                shutil.copystat(self._live_or_backup(path), self.wanted / path)
            else:
                assert found[path] == entry, path

    def _live_or_backup(self, path: str) -> Path:
        backup = self.root / BACKUP / path
        return backup if backup.exists() else self.root / path

    @invariant()
    def nothing_of_it_is_strange(self) -> None:
        assert all(node.kind in Kind for node in scan(entries(self.root)).values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=examples(25),
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),  # each step writes a tree or two: shrinking would take minutes
)
