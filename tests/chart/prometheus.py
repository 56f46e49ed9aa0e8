"""A Prometheus server in the tests' hands: Debian's, on loopback, with a configuration and a folder of its own."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# Rules name minutes and hours. In tests each is a second or a minute, so that they need no hour.
TIMES_FASTER = 60
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?<=\[)(\d+)([smh])(?=\])")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0


def faster(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The same rules with each duration divided by TIMES_FASTER: ranges (`[5m]`) and `for`. No threshold is changed."""
    copied: dict[str, Any] = json.loads(json.dumps(rules))
    for group in copied["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _DURATION.sub(lambda found: _divided(found[0]), rule["expr"])
            if "for" in rule:
                rule["for"] = _divided(rule["for"])
    return copied


def _divided(duration: str) -> str:
    milliseconds, rest = divmod(int(duration[:-1]) * _SECONDS[duration[-1]] * 1000, TIMES_FASTER)
    assert rest == 0, duration
    return f"{milliseconds}ms"


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest value of a series, or its greatest in a range."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """What an expression returns at a time. Raises AssertionError with the server's words."""
        given = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        found = self.get("/api/v1/query", **given)
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def greatest(self, expression: str, start: float, end: float) -> list[Sample]:
        """The greatest value of each series between two times, looked at each second. NaN counts as no value."""
        found = self.get("/api/v1/query_range", query=expression, start=f"{start:.3f}", end=f"{end:.3f}", step="1")
        samples = []
        for one in found["result"]:
            if values := [value for _, text in one["values"] if not math.isnan(value := float(text))]:
                samples.append(Sample(one["metric"], max(values)))
        return samples

    def firing(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The alerts that fire now, by name and region."""
        return {
            (one["labels"]["alertname"], one["labels"]["region"]): one
            for one in self.get("/api/v1/alerts")["alerts"]
            if one["state"] == "firing"
        }

    def get(self, path: str, **given: str) -> Any:
        """The data of an answer of the API. Raises AssertionError with the server's words."""
        query = urllib.parse.urlencode(given)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {given}: {error.read().decode()}") from error
        assert document["status"] == "success", document
        return document["data"]


@contextmanager
def prometheus(folder: Path, rules: Mapping[str, Any], scraped: Sequence[Mapping[str, Any]]) -> Iterator[Prometheus]:
    """A server with these scrape_configs, each second; it ends with the block."""
    binary = shutil.which("prometheus")
    assert binary
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": scraped,
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "GOMAXPROCS": "1"},
        )
    try:
        server = Prometheus(f"http://{address}")
        _wait_ready(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
