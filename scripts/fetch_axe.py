"""Put axe-core, which checks pages for accessibility, into the cache: one file of one package of the npm registry.

For tests alone. The package's archive must have the hash below. `--print-path` prints the file's path.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import tarfile
import tempfile
import urllib.request
from pathlib import Path

VERSION = "4.14.1"
URL = f"https://registry.npmjs.org/axe-core/-/axe-core-{VERSION}.tgz"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
SECONDS_MAX = 60.0
CACHE = Path(os.environ.get("SPEIL_CACHE") or Path.home() / ".cache" / "speil")


def path() -> Path:
    """Where the script is, or would be."""
    return CACHE / f"axe-{VERSION}.min.js"


def fetch() -> Path:
    """The path of the script, which is downloaded where it is not there. Raises OSError."""
    target = path()
    if target.exists():
        return target
    with urllib.request.urlopen(URL, timeout=SECONDS_MAX) as response:
        data = response.read()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise OSError(f"{URL} does not have the hash that is pinned here")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        script = member.read()
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
        file.write(script)
    Path(file.name).replace(target)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print-path", action="store_true", help="print the path and fetch nothing")
    print(path() if parser.parse_args().print_path else fetch())
