#!/bin/sh
# Makes the wheel, the sdist, and trans and coordinator as single files that need nothing but a Python
# of this version: dist/*.whl, dist/*.tar.gz, dist/trans.pyz, dist/coordinator.pyz.
# Usage: tools/dist.sh [FOLDER [wheel|trans|coordinator|all]]
set -eu
cd "$(dirname "$0")/.."
out=${1:-dist}
what=${2:-all}
bin=$PWD/.venv/bin
uv=$(command -v uv || echo "$bin/uv")

mkdir -p "$out"
"$bin/hatchling" build -d "$out" > /dev/null 2>&1 || { echo "dist: hatchling build failed; see: $bin/hatchling build" >&2; exit 1; }
version=$("$bin/hatchling" version)
short=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheel=$out/kit-$version-py3-none-any.whl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The single files are for the Python that makes them: what is compiled fits no other.
cat > "$work/preamble.py" << END
import sys
this = "%d.%d" % sys.version_info[:2]
if this != "$short":
    sys.exit("made for Python $short, and this is " + this + "; start it with that one, or make it anew: make dist")
END

single() { # name, extras, entry point
    [ "$what" = all ] || [ "$what" = "$1" ] || return 0
    VIRTUAL_ENV=$PWD/.venv "$uv" pip install --quiet --target "$work/$1" --constraint requirements.lock "$wheel[$2]"
    rm -rf "$work/$1/bin"
    "$bin/shiv" --reproducible --compressed --site-packages "$work/$1" --preamble "$work/preamble.py" \
        --python "/usr/bin/env python3" --entry-point "$3" --output-file "$out/$1.pyz"
}
single trans sqlite,postgres,mysql,uvloop apps.trans.main:main
single coordinator sqlite,postgres,mysql,redis,uvloop kit.dtm.server.main:main
