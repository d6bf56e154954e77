#!/bin/sh
# Regenerates every *_pb2 file. The generator is pinned apart from .venv: gencode of a newer one would refuse
# older protobuf run times (docs/dependencies.md), so it stays at 1.80 while the run time moves.
set -eu
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo .venv/bin/uv)
tools="grpcio-tools==1.80.0 mypy-protobuf==3.7.0"
if [ "$(cat .venv-proto/.stamp 2>/dev/null || true)" != "$tools" ]; then
    "$uv" venv --quiet --clear .venv-proto
    # shellcheck disable=SC2086  # two requirements
    VIRTUAL_ENV=$PWD/.venv-proto "$uv" pip install --quiet $tools
    echo "$tools" > .venv-proto/.stamp
fi
protoc() {
    PATH="$PWD/.venv-proto/bin:$PATH" .venv-proto/bin/python -m grpc_tools.protoc "$@"
}
.venv/bin/kit proto client api --python "$PWD/.venv-proto/bin/python" --openapi none
# Messages alone, which the kit cannot make for itself: it needs some of them to run.
protoc -I. --python_out=. --mypy_out=quiet:. kit/dtm/pb/dtm.proto kit/etcd/pb/etcd.proto
# -Ikit: its name is errors/errors.proto, as protos of kratos services import it
protoc -Ikit --python_out=kit --mypy_out=quiet:kit errors/errors.proto
