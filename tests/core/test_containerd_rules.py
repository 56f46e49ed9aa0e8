"""The model of containerd's rules for registry hosts, and files of speil read by these rules."""

from __future__ import annotations

import pytest

from speil.hosts_toml.containerd import (
    Folders,
    Generation,
    Host,
    RejectedError,
    directories_of,
    read_hosts,
    resolve,
)
from speil.hosts_toml.document import HostsTomlError, Mirrors, check_target, parse, render, without_targets
from speil.hosts_toml.targets import once_each, same_target
from tests.hosts_trees import FILES, UNREADABLE, text

V1, V2 = Generation.V1, Generation.V2
MIRRORS = Mirrors(("http://127.0.0.1:5000", "http://10.0.0.1:30020"))


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        ("docker.io", ("docker.io", "_default")),
        ("reg.test:5000", ("reg.test_5000_", "reg.test:5000", "_default")),
        ("[fd00::1]:5000", ("[fd00::1]_5000_", "[fd00::1]:5000", "_default")),
    ],
)
def test_the_first_directory_that_exists_is_read(registry: str, names: tuple[str, ...]) -> None:
    assert directories_of(registry) == names
    folders: dict[str, dict[str, bytes]] = {}
    for number, name in enumerate(reversed(names)):
        folders[name] = {"hosts.toml": f'server = "https://n{number}.test"\n[host]\n'.encode()}
        for generation in Generation:
            assert [host.host for host in resolve(folders, registry, generation)] == [f"n{number}.test"]


@pytest.mark.parametrize(
    ("registry", "url_1", "url_2"),
    [
        ("docker.io", "https://registry-1.docker.io/v2", "https://registry-1.docker.io/v2"),
        ("reg.test:5000", "https://reg.test:5000/v2", "https://reg.test:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2", "http://localhost:5000/v2"),
        ("127.0.0.1", "http://127.0.0.1/v2", "https://127.0.0.1/v2"),
    ],
)
def test_a_registry_without_a_directory(registry: str, url_1: str, url_2: str) -> None:
    assert [host.url for host in resolve({}, registry, V1)] == [url_1]
    assert [host.url for host in resolve({}, registry, V2)] == [url_2]


def test_certificates_of_dockers_layout_count_where_there_is_no_hosts_file() -> None:
    names = ("b.crt", "a.crt", "x.cert", "x.key", "y.cert", "z.key", "README")
    folder = dict.fromkeys(names, b"")
    for generation in Generation:
        (host,) = resolve({"reg.test": folder}, "reg.test", generation, "/c")
        assert host.ca == ("/c/reg.test/a.crt", "/c/reg.test/b.crt")
        assert host.client == (("/c/reg.test/x.cert", "/c/reg.test/x.key"), ("/c/reg.test/y.cert",) * 2)
    (host,) = resolve({"reg.test": {**folder, "hosts.toml": b"broken ="}}, "reg.test", V2)
    assert host.ca, "what can't be read is as if it were not there"
    assert not resolve({"reg.test": {**folder, "hosts.toml": b"[host]\n"}}, "reg.test", V2)[0].ca


def test_the_generations_differ_where_they_do() -> None:
    with pytest.raises(RejectedError, match=r"no \[host\]"):
        read_hosts('server = "https://x"', "/", V1)
    assert [host.host for host in read_hosts('server = "https://x"', "/", V2)] == ["x"]
    twice = '[host."https://a"]\n[host."https://b"]\n[host."https://a".header]\nx = "y"\n'
    assert [host.host for host in read_hosts(twice, "/", V1)] == ["a", "b", ""]
    assert [host.host for host in read_hosts(twice, "/", V2)] == ["a", "b", "a", ""]
    inline = '[host]\n"https://a" = { capabilities = ["pull"] }\n'
    assert [host.host for host in read_hosts(inline, "/", V1)] == ["a", ""]
    assert [host.host for host in read_hosts(inline, "/", V2)] == [""]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://x", "/v2"),
        ("https://x/", "/v2"),
        ("https://x/v2", "/v2"),
        ("https://x/v2/", "/v2"),
        ("https://x/a/../b", "/b/v2"),
    ],
)
def test_paths_end_in_v2(url: str, path: str) -> None:
    assert read_hosts(f'server = "{url}"', "/", V2)[0].path == path
    assert read_hosts(f'server = "{url}"\noverride_path = true', "/", V2)[0].path in (path, path[:-3], "/", "")


def others(hosts: list[Host]) -> list[Host]:
    ours = ("http://127.0.0.1:5000/v2", "http://10.0.0.1:30020/v2")
    return [host for host in hosts if host.url not in ours]


@pytest.mark.parametrize("shape", sorted({*FILES} - UNREADABLE - {"a host inside its table"}))
@pytest.mark.parametrize("generation", list(Generation))
def test_speil_stands_in_front_of_each_shape_and_all_else_is_as_it_was(shape: str, generation: Generation) -> None:
    before = text(shape)
    after = render("https://reg.test", MIRRORS, before)
    was: Folders = {"reg.test": {"hosts.toml": before.encode()}}
    found = resolve({"reg.test": {"hosts.toml": after.encode()}}, "reg.test", generation)
    if generation is V2 and shape == "a timeout that is none":
        assert found == resolve(was, "reg.test", V2), "rejected, as before"
        return
    assert [host.url for host in found[:2]] == ["http://127.0.0.1:5000/v2", "http://10.0.0.1:30020/v2"]
    if generation is V2 or "host" in parse(before):
        assert others(found) == others(resolve(was, "reg.test", generation))
    assert not before or parse(without_targets(after, MIRRORS.targets)).get("server") == parse(before).get("server")
    for line in before.splitlines():
        if line.startswith(("#", "note", "kept")) or "# the cache" in line:
            assert line in after, "comments and keys of others are kept"


@pytest.mark.parametrize("shape", ["no TOML"])
def test_what_is_not_toml_is_refused(shape: str) -> None:
    with pytest.raises(HostsTomlError):
        render("https://reg.test", MIRRORS, text(shape))


@pytest.mark.parametrize(
    "targets",
    [
        ("http://fd00::7:5000", "http://[fd00::7]:5000/", "http://[fd00:0::7]:5000"),
        ("http://10.0.0.1:5000", "http://10.0.0.1:5000/", "HTTP://10.0.0.1:5000"),
        ("http://mirror.test", "http://MIRROR.test:80", "http://mirror.test/"),
    ],
)
def test_a_target_given_twice_is_written_once(targets: tuple[str, ...]) -> None:
    checked = tuple(check_target(target) for target in targets)
    assert len(once_each(checked)) == 1
    for existing in ("", f'[host."{checked[0]}/"]\n[host."https://cache.test"]\n'):
        document = parse(render("https://reg.test", Mirrors(checked), existing))
        assert [url for url in document["host"] if same_target(url, checked[0])] == [checked[0]]


@pytest.mark.parametrize(
    "url", ["http://x/a'b", "http://x/a b", "http://x/a\\b", "http://x:0", "http://x:99999999", "http://\n"]
)
def test_a_target_that_would_break_the_file_is_refused(url: str) -> None:
    with pytest.raises(HostsTomlError, match="not a mirror target"):
        check_target(url)
