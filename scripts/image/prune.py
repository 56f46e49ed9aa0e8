"""What the image leaves out of the packages, and why. A pattern that matches nothing is an error: it has gone stale."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# {lib} is the folder of the architecture, such as x86_64-linux-gnu.
DEBIAN = {
    "scripts and settings of a system that nobody installs into": (
        "etc/dpkg",
        "etc/profile.d",
        "etc/skel",
        "etc/default",
        "etc/update-motd.d",
        "etc/issue*",
        "etc/ca-certificates",
        "etc/python3.11",
        "usr/sbin",
        "usr/lib/binfmt.d",
        "usr/lib/python3.11/sitecustomize.py",
        "var/backups",
        "var/cache",
        "var/lib/misc",
        "var/local",
        "var/spool",
    ),
    "documents; the copyright files stay": (
        "usr/share/base-files",
        "usr/share/binfmts",
        "usr/share/dict",
        "usr/share/doc/*/*.gz",
        "usr/share/doc/*/README*",
        "usr/share/gcc",
        "usr/share/gdb",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/man",
        "usr/share/misc",
    ),
    "all certificates stand in etc/ssl/certs/ca-certificates.crt": ("usr/share/ca-certificates",),
    "conversions between character sets, which Python does itself": ("usr/lib/{lib}/gconv",),
    "libraries that nothing in the image is linked with": (
        "lib/{lib}/libmvec.so*",
        "lib/{lib}/libnsl*.so*",
        "usr/lib/{lib}/libexpatw.so*",
        "usr/lib/{lib}/engines-3",
        "usr/lib/{lib}/ossl-modules",
    ),
    "modules of Python whose libraries are not in the image": (
        "usr/lib/python3.11/lib-dynload/_bz2.*",
        "usr/lib/python3.11/lib-dynload/_crypt.*",
        "usr/lib/python3.11/lib-dynload/_curses*",
        "usr/lib/python3.11/lib-dynload/_dbm.*",
        "usr/lib/python3.11/lib-dynload/_lzma.*",
        "usr/lib/python3.11/lib-dynload/_sqlite3.*",
        "usr/lib/python3.11/lib-dynload/_uuid.*",
        "usr/lib/python3.11/lib-dynload/nis.*",
        "usr/lib/python3.11/lib-dynload/readline.*",
        "usr/lib/python3.11/curses",
        "usr/lib/python3.11/dbm",
        "usr/lib/python3.11/sqlite3",
    ),
    "tests, documents and tools of Python": (
        "usr/lib/python3.11/lib-dynload/_test*",
        "usr/lib/python3.11/lib-dynload/_ctypes_test*",
        "usr/lib/python3.11/lib-dynload/_xx*",
        "usr/lib/python3.11/lib-dynload/xx*",
        "usr/lib/python3.11/test",
        "usr/lib/python3.11/distutils",
        "usr/lib/python3.11/doctest.py",
        "usr/lib/python3.11/pydoc.py",
        "usr/lib/python3.11/pydoc_data",
        "usr/lib/python3.11/turtle.py",
        "usr/lib/python3.11/unittest",
        "usr/lib/python3.11/venv",
    ),
    "East Asian character sets, sound devices and protocols that speil does not speak": (
        "usr/lib/python3.11/lib-dynload/_codecs_*",
        "usr/lib/python3.11/lib-dynload/audioop.*",
        "usr/lib/python3.11/lib-dynload/ossaudiodev.*",
        "usr/lib/python3.11/imaplib.py",
        "usr/lib/python3.11/mailbox.py",
        "usr/lib/python3.11/nntplib.py",
        "usr/lib/python3.11/xmlrpc",
    ),
}
# What the packages of arm64 don't have.
AMD64_ONLY = {"lib/{lib}/libmvec.so*"}
# Below the folder of the wheels. These may match nothing: the lock decides which wheels there are.
WHEELS = {
    "scripts with the build machine's interpreter in their first line": ("bin",),
    "man pages: the image has no pager": ("share",),
    "sources of compiled modules": ("**/*.c", "**/*.h", "**/*.pxd", "**/*.pyx", "**/*.cc"),
    "what only type checkers read": ("**/*.pyi", "**/py.typed"),
    "what the installer wrote about this machine": (
        "*.dist-info/INSTALLER",
        "*.dist-info/RECORD",
        "*.dist-info/REQUESTED",
        "*.dist-info/direct_url.json",
        "*.dist-info/uv_cache.json",
        ".lock",
    ),
    "bytecode: compiled for the image": ("**/__pycache__",),
    "what cffi and pycparser need at the build of other packages": ("pycparser", "cffi"),
}


def prune_debian(root: Path, library_folder: str) -> None:
    """Remove what DEBIAN names. Exits where a pattern matches nothing."""
    stale = [
        pattern
        for patterns in DEBIAN.values()
        for pattern in patterns
        if not _remove(root, pattern.format(lib=library_folder)) and pattern not in AMD64_ONLY
    ]
    if stale:
        sys.exit(f"scripts/image/prune.py names what the packages don't have: {', '.join(stale)}")


def prune_wheels(folder: Path) -> None:
    """Remove what WHEELS names."""
    for patterns in WHEELS.values():
        for pattern in patterns:
            _remove(folder, pattern)


def _remove(folder: Path, pattern: str) -> bool:
    found = list(folder.glob(pattern))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # a link to its folder may have led here before
    return bool(found)
