#!/bin/sh
# focus-validator.sh [FILE...]: what the FOCUS project's own validator says of our files, or of those given.
# Optional: it needs a Python that the project itself does not. Exit codes: 0 nothing but the validator's known
# defects; 1 something else; 3 this machine lacks what it needs.
set -eu
cache=.cache/focus-validator
python_wanted="Python 3.12 or 3.13"

lacks() { echo "focus-validator: $1" >&2; exit 3; }

# The validator's dependencies have no builds for 3.14 yet. FOCUS_PYTHON names one that is found by no rule.
find_python() {
    for candidate in "${FOCUS_PYTHON:-}" python3.13 python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do
        "$candidate" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null || continue
        command -v "$candidate"
        return
    done
}

if [ ! -x "$cache/bin/focus-validator" ]; then
    python=$(find_python)
    [ -n "$python" ] || lacks "needs $python_wanted, and there is none here (Debian 12 has 3.11). Install one and name it: FOCUS_PYTHON=/path/to/python make focus-validator"
    echo "Installing focus-validator with $("$python" -V) into $cache ..."
    .venv/bin/uv venv -q --clear --python "$python" "$cache" || lacks "no environment could be made with $python"
    # It imports pyarrow's interfaces of before 22.
    .venv/bin/uv pip install -q --python "$cache/bin/python" 'focus-validator>=2.2.1,<3' 'pyarrow<22' ||
        lacks "focus-validator could not be installed from the package index"
fi

if [ $# -eq 0 ]; then
    # Both a month of business and a bill with every kind of line.
    .venv/bin/tokengrid demo --var "$cache/var" --calls 600 --accounts 60 --json >/dev/null
    .venv/bin/tokengrid bill focus 2026-06 "$cache/month.csv" --var "$cache/var"
    .venv/bin/python -m tests.unit.focus_bills "$cache/every-kind.csv"
    set -- "$cache/month.csv" "$cache/every-kind.csv"
fi
exec .venv/bin/python deploy/focus_validator.py "$cache" "$@"
