"""Settings: kinds, and where a value comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil import config
from speil.config import ConfigError, NodeSettings
from speil.mirror.settings import MirrorSettings
from speil.setting import ListenAddress, SettingError, boolean, byte_size, duration, each
from speil.setting.kinds import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("5s", 5),
        ("1h30m", 5400),
        ("0", 0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2us", 2e-6),
        ("1m0.5s", 60.5),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "20", "ms", "-5s", "5 s", "1d", "s5", "1h-30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="20ms"):
        duration.parse(text)


@given(st.integers(0, 10**7))
def test_a_duration_survives_being_shown(milliseconds: int) -> None:
    assert parse_duration(show_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("5000", 5000),
        ("100MiB", 100 << 20),
        ("100Mi", 100 << 20),
        ("1.5GB", 1_500_000_000),
        ("64kB", 64_000),
        ("64 KB", 64_000),
        ("2TiB", 2 << 40),
        ("10MBps", 10 << 20),  # Spegel's --blob-speed
        ("10 GBps", 10 << 30),
        ("512Bps", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert byte_size.parse(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-5MiB", "5 parsecs", "1.5.5GB", "10mbps", "10MB/s", "٣MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="100MiB"):
        byte_size.parse(text)


@given(st.integers(0, 1 << 50))
def test_a_size_survives_being_shown(size: int) -> None:
    assert byte_size.parse(byte_size.show(size)) == size


def test_booleans_are_gos() -> None:
    assert [boolean.parse(text) for text in ("true", "T", "1", "false", "F", "0")] == [True] * 3 + [False] * 3
    with pytest.raises(SettingError):
        boolean.parse("yes")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a, b,,c,", ("a", "b", "c")),
        ("https://a,https://b/,_default", ("https://a", "https://b/", "_default")),
        ("http://10.0.0.1:5000,10.0.0.2:5000", ("http://10.0.0.1:5000", "10.0.0.2:5000")),
        ("https://a/b,c,d,https://e", ("https://a/b,c,d", "https://e")),
        ("https://a/b,https://c/d,", ("https://a/b", "https://c/d")),
    ],
)
def test_a_comma_in_the_path_of_an_url_is_the_urls(value: str, items: tuple[str, ...]) -> None:
    assert each("texts", str).parse(value) == items


@pytest.mark.parametrize(
    ("text", "host", "port"), [(":5000", "", 5000), ("10.0.0.7:1", "10.0.0.7", 1), ("[::1]:2", "::1", 2)]
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    assert ListenAddress.parse(text) == ListenAddress(host, port)
    assert str(ListenAddress.parse(text)) == text


@pytest.mark.parametrize("text", ["", "5000", ":", ":x", ":70000", "::1:5000"])
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        ListenAddress.parse(text)


def build(*argv: str, **environ: str) -> NodeSettings:
    arguments = config.split_arguments("registry", argv, config.all_settings(NodeSettings))
    return config.build(NodeSettings, arguments, environ)


def test_a_flag_wins_over_the_environment_over_the_default() -> None:
    assert build().mirror.mirror_resolve_timeout == 0.02
    assert build(MIRROR_RESOLVE_TIMEOUT="1s").mirror.mirror_resolve_timeout == 1
    assert build("--mirror-resolve-timeout", "2s", MIRROR_RESOLVE_TIMEOUT="1s").mirror.mirror_resolve_timeout == 2
    assert build(MIRROR_RESOLVE_TIMEOUT="").mirror.mirror_resolve_timeout == 0.02


def test_booleans_and_lists_in_all_their_forms() -> None:
    assert build("--resolve-tags=false").mirror.resolve_tags is False
    assert build("--resolve-tags").mirror.resolve_tags is True
    urls = ("https://docker.io", "https://ghcr.io")
    assert build("--mirrored-registries", *urls).mirror.mirrored_registries == urls
    assert build(f"--mirrored-registries={','.join(urls)}").mirror.mirrored_registries == urls
    assert build("--mirrored-registries", urls[0], "--mirrored-registries", urls[1]).mirror.mirrored_registries == urls
    assert build(MIRRORED_REGISTRIES=",".join(urls)).mirror.mirrored_registries == urls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mirror-resolve-timout=1s"], "did you mean --mirror-resolve-timeout?"),
        (["--mirror-resolve-timeout", "20"], "--mirror-resolve-timeout: '20' is not a duration"),
        (["--mirror-resolve-timeout"], "--mirror-resolve-timeout needs a value (duration)"),
        (["--bootstrap-kind=gossip"], "use one of kubernetes, file, dns, http, static"),
        (["--static-bootstrap-peers=10.0.0.1:5001"], "multiaddr '10.0.0.1:5001'"),
        (["--mirrored-registries=docker.io"], "say something like https://docker.io"),
        (["--mirrored-registries=https://docker.io/library"], "nothing may stand behind the host"),
        (["--registry-filters=["], "is not a regular expression"),
        (["--registry-addr=5000"], "use host:port or :port"),
        (["--log-level=LOUD"], "use one of DEBUG, INFO"),
        (["-x"], "unknown flag -x"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(*argv)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="environment variable MIRROR_RESOLVE_RETRIES: 'three'"):
        build(MIRROR_RESOLVE_RETRIES="three")


# what the charts of both Spegel generations pass
NEW_CHART = [
    "--log-level=INFO",
    "--mirror-resolve-retries=3",
    "--mirror-resolve-timeout=20ms",
    "--registry-addr=:5000",
    "--router-addr=:5001",
    "--metrics-addr=:9090",
    "--containerd-sock=/run/containerd/containerd.sock",
    "--containerd-namespace=k8s.io",
    "--containerd-content-path=/var/lib/containerd/io.containerd.content.v1.content",
    "--bootstrap-kind=dns",
    "--dns-bootstrap-domain=spegel-bootstrap.spegel.svc.cluster.local.",
    "--debug-web-enabled=true",
    "--mirrored-registries",
    "https://docker.io",
    "https://ghcr.io",
    "--registry-filters",
    "^x",
    "--data-dir=/var/lib/spegel",
]
OLD_CHART = [
    "--mirror-resolve-retries=3",
    "--mirror-resolve-timeout=20ms",
    "--registry-addr=:5000",
    "--router-addr=:5001",
    "--metrics-addr=:9090",
    "--registries",
    "https://cgr.dev",
    "https://docker.io",
    "--containerd-sock=/run/containerd/containerd.sock",
    "--containerd-namespace=k8s.io",
    "--containerd-registry-config-path=/etc/containerd/certs.d",
    "--bootstrap-kind=static",
    "--leader-election-namespace=spegel",
    "--leader-election-name=spegel-leader-election",
    "--resolve-latest-tag=true",
    "--local-addr=10.0.0.1:30020",
    "--blob-speed=10MBps",
    "--kubeconfig-path=",
]


def test_the_flags_of_both_generations_are_understood() -> None:
    assert build(*NEW_CHART).router.dns_bootstrap_domain == "spegel-bootstrap.spegel.svc.cluster.local."
    assert build(*OLD_CHART).mirror.mirrored_registries == ("https://cgr.dev", "https://docker.io")


def test_a_retired_flag_warns_and_says_what_replaced_it() -> None:
    arguments = config.split_arguments("registry", OLD_CHART, config.all_settings(NodeSettings))
    said = "\n".join(arguments.warnings)
    for words in (
        "--registries is now called --mirrored-registries",
        "--local-addr has no effect",
        "--blob-speed is now called --upload-limit",
    ):
        assert words in said


def test_the_upload_limit_by_its_own_and_its_old_name() -> None:
    for flag in ("--upload-limit=10MiB", "--blob-speed=10MBps"):
        arguments = config.split_arguments("registry", [flag], config.all_settings(NodeSettings))
        assert config.build(MirrorSettings, arguments, {}).upload_limit == 10 << 20
    nothing = config.split_arguments("registry", [], config.all_settings(NodeSettings))
    assert config.build(MirrorSettings, nothing, {"UPLOAD_LIMIT": "1GB"}).upload_limit == 10**9
    with pytest.raises(ConfigError, match=r"UPLOAD_LIMIT: .*at least 128KiB"):
        config.build(MirrorSettings, nothing, {"UPLOAD_LIMIT": "10KiB"})


def test_an_old_variable_counts_where_nothing_of_today_says_otherwise() -> None:
    settings = config.all_settings(NodeSettings)

    def read(argv: list[str], environ: dict[str, str]) -> tuple[int, list[str]]:
        arguments = config.split_arguments("registry", argv, settings)
        config.read_old_variables("registry", arguments, settings, environ)
        return config.build(MirrorSettings, arguments, environ).upload_limit, arguments.warnings

    old = {"BLOB_SPEED": "10MBps"}
    assert read([], old) == (10 << 20, ["environment variable BLOB_SPEED is now called UPLOAD_LIMIT"])
    assert read([], old | {"UPLOAD_LIMIT": "20MiB"}) == (20 << 20, [])
    assert read(["--upload-limit=30MiB"], old) == (30 << 20, [])
    assert read([], {"BLOB_SPEED": ""}) == (0, [])
