"""nginx as the baseline: a static file server with sendfile, and proxies in front of another server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS_MAX = 10.0
_CONFIG = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type application/octet-stream;
  client_body_temp_path {directory}/t1;
  proxy_temp_path {directory}/t2;
  fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4;
  scgi_temp_path {directory}/t5;
  server {{
    listen {host}:{port};
    location / {{ {location} }}
  }}
}}
"""
STATIC = "root {root};"
PROXY = "proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection '';"
PROXY_UNBUFFERED = (
    PROXY + " proxy_buffering off; proxy_buffer_size 256k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k;"
)


def available() -> bool:
    """Whether nginx is installed."""
    return shutil.which("nginx") is not None


class Nginx:
    """A running nginx: where it listens and the worker that does the work."""

    def __init__(self, host: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.host, self.port = host, port
        self._process = process

    @property
    def pids(self) -> list[int]:
        """The worker's pid."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@contextmanager
def nginx(directory: Path, host: str, location: str) -> Iterator[Nginx]:
    """An nginx with one `location` on a free port of `host`."""
    directory.mkdir(parents=True)
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    config = directory / "nginx.conf"
    config.write_text("user root;\n" + _CONFIG.format(directory=directory, host=host, port=port, location=location))
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(directory), "-e", str(directory / "error.log")])
    try:
        _wait_listening(host, port)
        yield Nginx(host, port, process)
    finally:
        process.terminate()
        process.wait()


def _wait_listening(host: str, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(f"nginx does not listen on {host}:{port}")
