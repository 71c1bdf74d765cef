#!/bin/sh
# Makes a virtual environment out of a file of pins, or finds it made: venv.sh FOLDER PINS [PROJECT]
# With PROJECT (its pyproject.toml) the command `dvt` is installed too, running from this working tree.
set -eu

venv=$1
pins=$2
project=${3:-}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# The newest Python on the PATH that is recent enough, or the one that PYTHON names.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "This needs Python 3.11 or newer; ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 || true)." \
        "Install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) and name it: make PYTHON=python3.11 ..."
}

# A working environment that was made from exactly these files needs nothing.
wanted=$(cat "$pins" $project)
if "$venv/bin/python" -c '' 2>/dev/null && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

python=$(find_python)
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$python has no venv module, with which the packages are kept apart from your system's." \
        "Debian, Ubuntu: apt-get install python$version-venv"
fi

echo "Installing $(grep -c '==' "$pins") packages into $venv (only this once)" >&2
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$pins"
if [ -n "$project" ]; then
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e "$(dirname "$project")"
fi
printf '%s\n' "$wanted" >"$venv/installed"
