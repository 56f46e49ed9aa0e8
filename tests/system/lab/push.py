"""Uploads an image by the distribution API; runs inside the hub's namespace with nothing but Python."""

import http.client
import json
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, urlsplit


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    connection = http.client.HTTPConnection(urlsplit(plan["url"]).netloc, timeout=60)
    login = {"Authorization": f"Basic {b64encode(':'.join(plan['login']).encode()).decode()}"} if plan["login"] else {}

    def send(method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        connection.request(method, path, body, {"Content-Type": kind, **login})
        answer = connection.getresponse()
        answer.read()
        if answer.status not in (201, 202):
            raise SystemExit(f"{method} {path}: {answer.status}")
        return answer.headers.get("Location", "")

    for blob in plan["blobs"]:
        data = Path(blob["file"]).read_bytes()
        if "manifest" in blob["type"] or "index" in blob["type"]:
            last = blob is plan["blobs"][-1]
            send("PUT", f"/v2/{plan['name']}/manifests/{plan['tag'] if last else blob['digest']}", data, blob["type"])
            continue
        upload = urlsplit(send("POST", f"/v2/{plan['name']}/blobs/uploads/"))
        send("PUT", f"{upload.path}?{upload.query}&digest={quote(blob['digest'])}", data)


main()
