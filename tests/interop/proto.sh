#!/bin/sh
# Regenerates what the peers and the tests make of the protos here; tools/proto.sh made the environment.
set -eu
cd "$(dirname "$0")/../.."

export PATH="$PWD/.venv-proto/bin:$PATH"
googleapis=$(.venv/bin/python -c 'import google.api, pathlib; print(pathlib.Path(next(iter(google.api.__path__))).parents[1])')
protoc() {
    .venv-proto/bin/python -m grpc_tools.protoc -I. -I"$googleapis" "$@"
}
protoc --python_out=. --grpc_python_out=. --mypy_out=quiet:. tests/interop/peer.proto tests/interop/testing.proto
if command -v go > /dev/null; then
    GOBIN=$PWD/.venv-proto/bin go -C tests/interop/go install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
    out=tests/interop/go
    protoc --go_out=$out --go_opt=module=interop --go-grpc_out=$out --go-grpc_opt=module=interop tests/interop/peer.proto
fi
