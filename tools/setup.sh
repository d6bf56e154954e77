#!/bin/sh
# Makes .venv from the lock file and bin/ from it. Needs python >= 3.11 and a package index, nothing else.
# Idempotent: does nothing when neither the lock nor pyproject.toml changed.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.kit-stamp
wanted=$(cat requirements.lock pyproject.toml tools/setup.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/python ]; then
    link_only=1
else
    link_only=0
fi

if [ "$link_only" = 0 ]; then
    python=""
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "setup: no python >= 3.11 found; install one or name it: make build PYTHON=/path/to/python3.12" >&2
        exit 2
    fi
    if [ ! -x .venv/bin/python ]; then
        echo "setup: making .venv with $("$python" --version)"
        "$python" -m venv .venv || {
            echo "setup: '$python -m venv' failed; on Debian: apt-get install python3-venv" >&2
            exit 2
        }
    fi
    uv=$(command -v uv || true)
    if [ -z "$uv" ]; then
        uv=.venv/bin/uv
        if [ ! -x "$uv" ]; then
            # a .venv that uv made has no pip of its own
            .venv/bin/python -m pip --version > /dev/null 2>&1 ||
                .venv/bin/python -m ensurepip > /dev/null 2>&1 || {
                echo "setup: .venv has no pip and cannot get one; try: make clean build" >&2
                exit 2
            }
            .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
        fi
    fi
    echo "setup: installing the locked packages"
    VIRTUAL_ENV=$PWD/.venv "$uv" pip install --quiet --require-hashes -r requirements.lock
    VIRTUAL_ENV=$PWD/.venv "$uv" pip install --quiet --no-deps --editable .
    echo "$wanted" > "$stamp"
fi

mkdir -p bin
for name in trans client coordinator kit; do
    ln -sfn "../.venv/bin/$name" "bin/$name"
done
