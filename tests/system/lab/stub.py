"""A registry that has nothing and logs who asks: `python stub.py LOG PORT[=CERTIFICATE,KEY] ...`."""

from __future__ import annotations

import http.server
import json
import ssl
import sys
import threading
from pathlib import Path
from typing import Any


class Handler(http.server.BaseHTTPRequestHandler):
    """Every request is logged as [port, path, headers] and answered 404."""

    protocol_version = "HTTP/1.1"
    log: Any = None

    def do_HEAD(self) -> None:
        """As GET."""
        entry = [self.server.server_address[1], self.path, dict(self.headers)]  # type: ignore[index]
        Handler.log.write(json.dumps(entry) + "\n")
        Handler.log.flush()
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """To TLS on a plain port: an answer that a client recognizes as HTTP."""
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the log is ours."""


class Server(http.server.ThreadingHTTPServer):
    """One that says nothing of clients that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that fails is what some trees are about."""


def main() -> None:
    """Serve until ended."""
    Handler.log = Path(sys.argv[1]).open("a", buffering=1)  # noqa: SIM115 as long as the process
    for argument in sys.argv[2:]:
        port, _, files = argument.partition("=")
        server = Server(("0.0.0.0", int(port)), Handler)
        if files:
            certificate, key = files.split(",")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
