#!/bin/sh
# make-venv.sh PYTHON VENV LOCK: a virtual environment with what the lock pins, and the project itself.
# Works where Debian's python3 comes without the venv module, by a virtualenv that the lock's index provides.
set -eu
python=$1 venv=$2 lock=$3

command -v "$python" >/dev/null || { echo "tokengrid needs Python 3.11 or newer: '$python' is not there." >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "tokengrid needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1)." >&2; exit 1; }

if [ ! -x "$venv/bin/python" ]; then
    echo "Creating the environment in $venv ..."
    if ! "$python" -m venv "$venv" 2>/dev/null; then
        rm -rf "$venv"
        "$python" -m pip install -q --target .cache/virtualenv virtualenv
        PYTHONPATH=.cache/virtualenv "$python" -m virtualenv -q "$venv"
    fi
fi
echo "Installing what $lock pins ..."
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
# The project is not installed but pointed to: it runs from its folder, with its command in the environment.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd > "$site/tokengrid.pth"
cat > "$venv/bin/tokengrid" <<SCRIPT
#!$(pwd)/$venv/bin/python
from tokengrid.cli import main
main()
SCRIPT
chmod +x "$venv/bin/tokengrid"
