#!/bin/sh
# Set up uv, pinned, inside the checkout (.tools/). Needs Python >= 3.11 and nothing else; on a Debian without
# python3-venv it installs that package when run as root, and says so otherwise.
set -eu
cd "$(dirname "$0")/.."
requirements=scripts/requirements/uv.txt # pinned, with hashes

python=""
for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "speil needs Python 3.11 or newer. Install it (Debian 12+: apt-get install python3) or set PYTHON." >&2
    exit 1
fi

make_venv() { "$python" -m venv .tools >.bootstrap.log 2>&1; }
echo "setting up uv in .tools ..."
if ! make_venv; then
    rm -rf .tools
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "this Python has no venv: installing python3-venv ..."
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        make_venv || { cat .bootstrap.log >&2; exit 1; }
    else
        cat .bootstrap.log >&2
        echo "This Python can't make virtual environments. Run: apt-get install python3-venv" >&2
        exit 1
    fi
fi
rm -f .bootstrap.log
.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$requirements"
"$python" -c 'import sys; print(sys.executable)' >.tools/base-python
